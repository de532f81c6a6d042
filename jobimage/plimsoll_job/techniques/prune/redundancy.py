"""Which channels the others can stand in for: deleted one by one, each time the one that consumers miss least.

A channel's cost is the error that is left in its consumers' outputs once their other weights were refitted by least
squares: the saliency of the Optimal Brain Surgeon (Hassibi and Stork 1992), with the second moments of the activations
in the place of the Hessian (as Frantar and Alistarh 2022, arXiv 2208.11580). A channel that repeats others, or is a
linear combination of them, costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plimsoll_job.techniques.moments import Moments
from plimsoll_job.techniques.observe import Batch
from plimsoll_job.techniques.prune.coupling import ChannelGroup, Member
from plimsoll_job.techniques.prune.importance import Scores
from plimsoll_job.techniques.prune.moments import moments_of
from plimsoll_job.techniques.prune.readers import Reader, readers_of

#: Share of the channels' mean energy that counts as noise: it makes the second moments of duplicates invertible.
RIDGE = 1e-6


def redundancy_scores(module: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Batch]) -> Scores:
    """Score channels by the relative error of their consumers' outputs that each saved parameter costs.

    Within a group the scores grow in the order in which its channels are best deleted.
    """
    layers = dict(module.named_modules())
    readers = readers_of(module, groups)
    moments = moments_of(module, readers, batches)
    scores = {}
    for group in groups:
        readings = [
            _read(layers[member.name], readers[member.name], member, moments[member.name], group.unit)
            for member in group.consumers
        ]
        costs = _delete_one_by_one(group.channel_count // group.unit, readings)
        scores[group.root] = np.repeat(costs / group.unit, group.unit) / _parameters_of_channel(layers, group)
    return scores


@dataclass
class _Reading:
    """What one consumer makes of the channels that are left.

    `places[i]` are its channels that are the group's channel i, or its unit i of channels; `effect` is W'W of its
    weights as refitted so far, over the energy of its output; `inverse` is the inverse of the second moments of its
    channels.
    """

    places: torch.Tensor
    effect: torch.Tensor
    inverse: torch.Tensor

    def costs(self, left: torch.Tensor) -> torch.Tensor:
        """Return the relative error of the output that deleting each of the group's channels would add."""
        places = self.places[left]
        rows, columns = places[:, :, None], places[:, None, :]
        solved: torch.Tensor = torch.linalg.solve(self.inverse[rows, columns], self.effect[rows, columns])
        return solved.diagonal(dim1=1, dim2=2).sum(dim=1)

    def delete(self, channel: int) -> None:
        """Delete the channel; the others take over what they can of it."""
        places = self.places[channel]
        gain = torch.linalg.solve(self.inverse[places][:, places], self.inverse[places])
        moved = self.effect[:, places] @ gain
        self.effect += gain.T @ self.effect[places][:, places] @ gain - moved - moved.T
        self.inverse -= self.inverse[:, places] @ gain


def _read(layer: nn.Module, reader: Reader, member: Member, moments: Moments, unit: int) -> _Reading:
    effect, second = reader.effect(layer), moments.second(centred=reader.takes_mean)
    energy = (effect * moments.second(centred=True)).sum()
    ridge = float(RIDGE * second.diagonal().mean()) or 1.0
    inverse = torch.linalg.inv(second + ridge * torch.eye(len(second)))
    places = torch.tensor(reader.places_of(member))
    places = places.reshape(len(places) // unit, -1)
    return _Reading(places, effect / energy if energy > 0 else effect, inverse)


def _delete_one_by_one(channel_count: int, readings: Sequence[_Reading]) -> NDArray[np.float64]:
    """Return each channel's cost at the time of its deletion, never less than the one before; the last one stays."""
    costs_of = np.full(channel_count, np.inf)
    left = torch.arange(channel_count)
    highest = 0.0
    while len(left) > 1:
        costs = torch.stack([reading.costs(left) for reading in readings]).sum(dim=0)
        index = int(costs.argmin())
        channel = int(left[index])
        highest = max(highest, float(costs[index]))
        costs_of[channel] = highest
        for reading in readings:
            reading.delete(channel)
        left = left[left != channel]
    return costs_of


def _parameters_of_channel(layers: dict[str, nn.Module], group: ChannelGroup) -> float:
    """Return how many weights go with one channel of the group."""
    total = 0.0
    for member in (*group.producers, *group.consumers):
        weight = layers[member.name].weight
        assert isinstance(weight, torch.Tensor)  # noqa: S101 — members are layers with a weight
        total += weight.numel() / weight.shape[member.axis] * len(member.positions) / group.channel_count
    return total
