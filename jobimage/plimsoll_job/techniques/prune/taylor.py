"""What the answers lose with a channel, to the first order of Taylor's series: from gradients, without labels.

After Molchanov et al. 2019 (arXiv 1906.10771): a gate of 1 stands before all that reads a unit of channels, and the
square of the derivative by it tells how far the answers move without the unit. They derive the loss, which takes labels
and says little of a model that is sure. Here each answer is derived with a random sign: the mean of the squares over
the signs is the sum of the squares over the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from plimsoll_job.errors import UserError
from plimsoll_job.techniques.observe import Batches, counted_answers, moved
from plimsoll_job.techniques.padding import differ
from plimsoll_job.techniques.prune.allocation import unread
from plimsoll_job.techniques.prune.gradients import OTHERWISE, derive, ending_of, parts_of
from plimsoll_job.techniques.prune.groups import ChannelGroup, parameters_of_channel, reads_of
from plimsoll_job.techniques.prune.importance import Scores
from plimsoll_job.techniques.shape import Cut


def taylor_scores(
    module: nn.Module, groups: Sequence[ChannelGroup], batches: Batches, seed: int, spec_field: str
) -> Scores:
    """Score channels by the squared change of the answers that each parameter saved with them costs.

    What is padded counts only where answers that count depend on it: elsewhere gradients are zero.
    """
    layers = dict(module.named_modules())
    with moved(batches.device, module):
        gates = [_Gates.of(group, layers) for group in groups]
        heard: dict[int, list[tuple[_Gates, _Read]]] = {}
        for one in gates:
            for read in one.reads:
                heard.setdefault(id(read.weight), []).append((one, read))

        def hear(weight: torch.Tensor, gradient: torch.Tensor) -> None:
            for of_group, read in heard[id(weight)]:
                of_group.hear(read, gradient)

        weights = [some[0][1].weight for some in heard.values()]
        for _ in derive(module, weights, hear, batches, seed=seed, spec_field=spec_field):
            for one in gates:
                one.settle()
        for one in gates:
            _check(one, module, groups, batches, spec_field)
    scores = {}
    for group, one in zip(groups, gates, strict=True):
        scores[group.root] = np.full(group.channel_count, np.inf)
        of_unit = one.total / group.unit / parameters_of_channel(layers, group)
        scores[group.root][np.array(group.units)] = of_unit.numpy()[:, None]
    return scores


class _Read(NamedTuple):
    """One weight that reads units: `units[i]` at `positions[i]` of the axis."""

    weight: nn.Parameter
    axis: int
    positions: torch.Tensor
    units: torch.Tensor

    def change(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return the derivative by a gate before each position of the axis."""
        others = [axis for axis in range(self.weight.ndim) if axis != self.axis]
        return (gradient * self.weight.detach()).sum(dim=others, dtype=torch.float64).cpu()[self.positions]


@dataclass
class _Gates:
    """A gate before each unit of a group: the sum of the squared derivatives by it, and that of the samples at hand."""

    group: ChannelGroup
    reads: Sequence[_Read]
    total: torch.Tensor
    change: torch.Tensor

    @classmethod
    def of(cls, group: ChannelGroup, layers: Mapping[str, nn.Module]) -> _Gates:
        """Return the gates, none of which anything is known of yet."""
        unit_of = {channel: number for number, unit in enumerate(group.units) for channel in unit}
        reads: dict[tuple[int, int], _Read] = {}
        for member in reads_of(group, layers):
            weight = layers[member.name].get_parameter(member.tensor)
            pairs = zip(member.positions, member.channels, strict=True)
            found = [(position, unit_of[channel]) for position, channel in pairs]
            # What layers share is read by all of them through one gradient.
            reads.setdefault((id(weight), member.axis), _Read(weight, member.axis, *torch.tensor(found).T))
        total, change = torch.zeros(2, len(group.units), dtype=torch.float64)
        return cls(group, list(reads.values()), total, change)

    def hear(self, read: _Read, gradient: torch.Tensor) -> None:
        """Take in the gradient by one of the weights, of the samples that are at hand."""
        self.change.index_add_(0, read.units, read.change(gradient))

    def settle(self) -> None:
        """Take in that of the samples at hand every gradient was heard."""
        self.total += self.change.square()
        self.change.zero_()


def _check(gates: _Gates, module: nn.Module, groups: Sequence[ChannelGroup], batches: Batches, spec_field: str) -> None:
    """Raise a UserError where gradients tell nothing of a group that the answers depend on."""
    group = gates.group
    reader = group.consumers[0].name
    if not gates.total.isfinite().all():
        raise UserError(
            f"{spec_field}: Taylor derives the model's answers; their gradient by what {reader} reads is not finite on "
            f"the calibration data; {OTHERWISE}"
        )
    if gates.total.any():
        return
    batch, mask = next(parts_of(batches))
    everything = Cut(group.root, tuple(channel for unit in group.units for channel in unit))
    with torch.no_grad():
        whole = counted_answers(module(*batch), mask)
        with unread(module, groups, [everything]):
            without = counted_answers(module(*batch), mask)
    if differ(without, whole):
        raise UserError(
            f"{spec_field}: Taylor derives the model's answers, and they have no gradient by what {reader} reads: "
            f"{ending_of(module, batch, [read.weight for read in gates.reads])}; {OTHERWISE}"
        )
