"""Which channels the others can stand in for: deleted one by one, each time the one that consumers miss least.

A channel's cost is the error that is left in its consumers' outputs once their other weights were refitted by least
squares: the saliency of the Optimal Brain Surgeon (Hassibi and Stork 1992), with the second moments of the activations
in the place of the Hessian (as Frantar and Alistarh 2022, arXiv 2208.11580). A channel that repeats others, or is a
linear combination of them, costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plimsoll_job.techniques.moments import Moments, bundled
from plimsoll_job.techniques.observe import Batches
from plimsoll_job.techniques.padding import Padding
from plimsoll_job.techniques.prune.groups import ChannelGroup, Member, parameters_of_channel
from plimsoll_job.techniques.prune.importance import Scores
from plimsoll_job.techniques.prune.moments import moments_of
from plimsoll_job.techniques.prune.readers import Reader, readers_of

#: Share of the channels' mean energy that counts as noise: it makes the second moments of duplicates invertible.
RIDGE = 1e-6
#: Units that are deleted between two renewals of the matrices: until then what each takes away is kept as a product.
STRETCH = 48


def redundancy_scores(
    module: nn.Module, groups: Sequence[ChannelGroup], batches: Batches, padding: Padding | None = None
) -> Scores:
    """Score channels by the relative error of their consumers' outputs that each saved parameter costs.

    Within a group the scores grow in the order in which its channels are best deleted.
    """
    layers = dict(module.named_modules())
    readers = readers_of(module, groups)
    scores = {}
    for bundle in bundled(groups, lambda group: [readers[name].channel_count for name in _read_by(group)]):
        names = frozenset[str]().union(*map(_read_by, bundle))
        read = {name: reader for name, reader in readers.items() if name in names}
        moments = moments_of(module, read, batches, padding)
        # Of each reader in the place of its moments, as large as they are.
        inputs = {name: _inputs(readers[name], layers[name], moments.pop(name)) for name in list(moments)}
        for group in bundle:
            readings = [
                _read(layers[member.name], readers[member.name], group, member, inputs[member.name])
                for member in group.consumers
            ]
            costs = _delete_one_by_one(len(group.units), readings) / group.unit / parameters_of_channel(layers, group)
            scores[group.root] = np.full(group.channel_count, np.inf)
            scores[group.root][np.array(group.units)] = costs[:, None]
    return scores


def _read_by(group: ChannelGroup) -> frozenset[str]:
    """Return the names of the layers that read the group's channels."""
    return frozenset(member.name for member in group.consumers)


@dataclass(frozen=True)
class _Inputs:
    """The inverse of the second moments of what a layer reads, on the host, and the energy of its output."""

    inverse: torch.Tensor
    energy: float


def _inputs(reader: Reader, layer: nn.Module, moments: Moments) -> _Inputs:
    second = moments.second(centred=reader.takes_mean)
    effect = reader.effect(layer).to(second.device)
    energy = float((effect * moments.second(centred=True)).sum())
    ridge = float(RIDGE * second.diagonal().mean()) or 1.0
    return _Inputs(torch.linalg.inv(second + ridge * torch.eye(len(second), device=second.device)).cpu(), energy)


def _read(layer: nn.Module, reader: Reader, group: ChannelGroup, member: Member, inputs: _Inputs) -> _Reading:
    by_unit = torch.tensor(reader.places_of(group, member))
    places = by_unit.flatten()
    weight = reader.weight(layer)[:, places]
    effect = torch.einsum("ocs,ods->cd", weight, weight)
    effect = effect / inputs.energy if inputs.energy > 0 else effect
    return _Reading(effect, inputs.inverse[places][:, places], by_unit.shape[1])


class _Reading:
    """What one consumer makes of the units that are held: single channels, or several that go at once.

    `effect` is W'W of its weights as refitted so far, over the energy of its output; `inverse` the inverse of the
    second moments of its channels: both for the group's channels alone, those of a unit side by side. What deletions
    take away from either is gathered in thin products, and subtracted when the matrices are renewed, which is fast.
    """

    def __init__(self, effect: torch.Tensor, inverse: torch.Tensor, width: int) -> None:
        self._effect, self._inverse, self._width = effect, inverse, width
        self._begin()

    def _begin(self) -> None:
        """Start anew from the two matrices."""
        room = (len(self._effect), STRETCH * self._width)
        self._gains, self._columns, self._moves = (torch.empty(room, dtype=torch.float64) for _ in range(3))
        self._used = 0
        self._own_effect, self._own_inverse = self._own(self._effect), self._own(self._inverse)

    def _own(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return the block of each unit with itself, [units, width, width]."""
        units = torch.arange(len(matrix)).view(-1, self._width)
        return matrix[units[:, :, None], units[:, None, :]]

    def costs(self) -> torch.Tensor:
        """Return the relative error of the output that deleting each unit would add; of deleted ones anything."""
        if self._width == 1:
            return (self._own_effect / self._own_inverse).flatten()
        solved: torch.Tensor = torch.linalg.solve_ex(self._own_inverse, self._own_effect)[0]
        return solved.diagonal(dim1=1, dim2=2).sum(dim=1)

    def delete(self, unit: int) -> None:
        """Delete the unit; the others take over what they can of it."""
        own = slice(unit * self._width, (unit + 1) * self._width)
        gains, columns, moves = (one[:, : self._used] for one in (self._gains, self._columns, self._moves))
        column = self._inverse[:, own] - gains @ columns[own].T
        effect = self._effect[:, own] - moves @ gains[own].T - gains @ moves[own].T
        gain = column / column[own] if self._width == 1 else torch.linalg.solve(column[own], column, left=False)
        move = effect - gain @ effect[own] / 2
        new = slice(self._used, self._used + self._width)
        self._gains[:, new], self._columns[:, new], self._moves[:, new] = gain, column, move
        self._used += self._width
        gain, column, move = (one.view(-1, self._width, self._width) for one in (gain, column, move))
        self._own_inverse -= gain @ column.mT
        shared = move @ gain.mT
        self._own_effect -= shared + shared.mT

    def renew(self, kept: torch.Tensor) -> None:
        """Subtract what was taken away so far, and hold on to these units only."""
        rows = (kept[:, None] * self._width + torch.arange(self._width)).flatten()
        gains, columns, moves = (one[rows, : self._used] for one in (self._gains, self._columns, self._moves))
        self._inverse = self._inverse[rows][:, rows] - gains @ columns.T
        shared = moves @ gains.T
        self._effect = self._effect[rows][:, rows] - shared - shared.T
        self._begin()


def _delete_one_by_one(unit_count: int, readings: Sequence[_Reading]) -> NDArray[np.float64]:
    """Return each unit's cost at the time of its deletion, never less than the one before; the last one stays."""
    costs_of = np.full(unit_count, np.inf)
    held = torch.arange(unit_count)
    is_left = torch.ones(unit_count, dtype=torch.bool)
    highest = 0.0
    for count in range(1, unit_count):
        costs = torch.stack([reading.costs() for reading in readings]).sum(dim=0)
        costs[~is_left] = torch.inf
        unit = int(costs.argmin())
        highest = max(highest, float(costs[unit]))
        costs_of[int(held[unit])] = highest
        is_left[unit] = False
        for reading in readings:
            reading.delete(unit)
        if count % STRETCH == 0:
            kept = is_left.nonzero().flatten()
            for reading in readings:
                reading.renew(kept)
            held, is_left = held[kept], is_left[kept]
    return costs_of
