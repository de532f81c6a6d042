"""What matters: one score a channel, comparable between groups because each group's mean is 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plimsoll_job.techniques.observe import Batch, observe_inputs
from plimsoll_job.techniques.prune.coupling import ChannelGroup, Member

Scores = dict[str, NDArray[np.float64]]


class MeanAbsoluteInput:
    """Mean absolute value of each channel that enters one layer, over every batch it has seen.

    Sums are kept, not means of batches: a short last batch weighs by its samples.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._channel_axis = -1 if isinstance(layer, nn.Linear) else 1
        self._total: torch.Tensor | None = None
        self._count = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Take in one batch."""
        channels_last = inputs.abs().movedim(self._channel_axis, -1)
        total = channels_last.reshape(-1, channels_last.shape[-1]).sum(dim=0, dtype=torch.float64).cpu()
        self._total = total if self._total is None else self._total + total
        self._count += channels_last[..., 0].numel()

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of each channel."""
        if self._total is None:
            raise RuntimeError("no batch was seen")
        return (self._total / self._count).numpy()


def activation_scores(module: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Batch]) -> Scores:
    """Score channels by the mean absolute activation that their consumers receive, over all batches."""
    layers = dict(module.named_modules())
    names = sorted({member.name for group in groups for member in group.consumers})
    statistics = {name: MeanAbsoluteInput(layers[name]) for name in names}
    observe_inputs(module, {name: statistic.add for name, statistic in statistics.items()}, batches)
    means = {name: statistic.mean for name, statistic in statistics.items()}
    return {
        group.root: _normalise(_total(group, {member: means[member.name] for member in group.consumers}))
        for group in groups
    }


def magnitude_scores(module: nn.Module, groups: Sequence[ChannelGroup]) -> Scores:
    """Score channels by the Euclidean norm of all weights that go with them, in producers and consumers."""
    layers = dict(module.named_modules())

    def squares(member: Member) -> NDArray[np.float64]:
        weight = layers[member.name].weight
        assert isinstance(weight, torch.Tensor)  # noqa: S101 — members are layers with a weight
        other_axes = [axis for axis in range(weight.ndim) if axis != member.axis]
        return weight.detach().double().square().sum(dim=other_axes).numpy()

    return {
        group.root: _normalise(
            np.sqrt(_total(group, {member: squares(member) for member in (*group.producers, *group.consumers)}))
        )
        for group in groups
    }


def _total(group: ChannelGroup, values: Mapping[Member, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return, for each channel of the group, the sum of the members' values at the positions that belong to it."""
    total = np.zeros(group.channel_count)
    for member, along_axis in values.items():
        np.add.at(total, np.array(member.channels), along_axis[np.array(member.positions)])
    return total


def _normalise(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = scores.mean()
    return scores / mean if mean > 0 else scores
