"""What matters: one score a channel, comparable between groups because each group's mean is 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plimsoll_api.spec import ActivationStatistic
from plimsoll_job.techniques.observe import Batches
from plimsoll_job.techniques.padding import Padding
from plimsoll_job.techniques.prune.groups import ChannelGroup, Member, entries_of
from plimsoll_job.techniques.prune.statistics import is_active, measure_inputs

#: One number a channel; the lowest go first.
Score = NDArray[np.float64]
Scores = dict[str, Score]

_MEASURED: dict[ActivationStatistic, Callable[[torch.Tensor], torch.Tensor]] = {
    ActivationStatistic.MEAN_ABSOLUTE: torch.abs,
    ActivationStatistic.ZERO_SHARE: is_active,
    ActivationStatistic.WANDA: torch.square,
}


def activation_scores(
    module: nn.Module,
    groups: Sequence[ChannelGroup],
    batches: Batches,
    statistic: ActivationStatistic = ActivationStatistic.MEAN_ABSOLUTE,
    padding: Padding | None = None,
) -> Scores:
    """Score channels by what their consumers receive of them, over all batches.

    MeanAbsolute: the mean absolute activation. ZeroShare: how often it is not zero (1 less APoZ, Hu et al. 2016, arXiv
    1607.03250). Wanda: the absolute weights that read the channel times its norm, summed (after Sun et al. 2023, arXiv
    2306.11695).
    """
    names = sorted({member.name for group in groups for member in group.consumers})
    received = measure_inputs(module, names, batches, _MEASURED[statistic], padding)

    def worth(member: Member) -> torch.Tensor:
        if statistic is ActivationStatistic.WANDA:
            return received[member.name].sqrt() * _sum_along(layers[member.name], member, torch.abs)
        return received[member.name]

    layers = dict(module.named_modules())
    # What a layer receives counts once, each of the weights that read it by itself.
    read = partial(entries_of, layers=layers) if statistic is ActivationStatistic.WANDA else attrgetter("consumers")
    return {group.root: _normalise(group, _total(group, read(group), worth)) for group in groups}


def magnitude_scores(module: nn.Module, groups: Sequence[ChannelGroup]) -> Scores:
    """Score channels by the Euclidean norm of all weights that go with them, in producers and consumers."""
    layers = dict(module.named_modules())

    def squares(member: Member) -> torch.Tensor:
        return _sum_along(layers[member.name], member, torch.square)

    return {
        group.root: _normalise(group, np.sqrt(_total(group, (*group.producers, *group.consumers), squares)))
        for group in groups
    }


def _sum_along(layer: nn.Module, member: Member, of: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return the sum, for each position of the member's axis, of something of the weights at it."""
    weight = layer.get_parameter(member.tensor)
    return of(weight.detach().double()).sum(dim=[axis for axis in range(weight.ndim) if axis != member.axis])


def _total(
    group: ChannelGroup, members: Iterable[Member], worth: Callable[[Member], torch.Tensor]
) -> NDArray[np.float64]:
    """Return, for each channel of the group, the sum of the members' worth at the positions that belong to it."""
    total = np.zeros(group.channel_count)
    for member in members:
        np.add.at(total, np.array(member.channels), worth(member).numpy()[np.array(member.positions)])
    return total


def _normalise(group: ChannelGroup, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = scores[np.array(group.units)].mean()
    return scores / mean if mean > 0 else scores
