"""What one run of a module told, as layers and channels: what can go together, and what cannot go, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn

from plimsoll_job.techniques.prune.atoms import NONE, Classes
from plimsoll_job.techniques.prune.flow import Flow
from plimsoll_job.techniques.prune.roles import role_of
from plimsoll_job.techniques.shape import Cut

#: Class of what stays.
STAYS = NONE
#: Which atoms go, by their numbers.
Gone = NDArray[np.bool_]
#: A tensor, by its layer and its name there, and one of its axes.
Place = tuple[str, str, int]


@dataclass(frozen=True)
class Member:
    """One tensor of a layer: position `positions[i]` on its axis belongs to the channel `channels[i]`."""

    name: str
    axis: int
    positions: tuple[int, ...]
    channels: tuple[int, ...]
    tensor: str = "weight"


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of which some can be deleted, numbered as the root layer's output channels.

    `producers` write the channels, `consumers` read them; `others`, such as normalisation, hand them on. The channels
    of a unit go at once, such as those of a head of attention or of a group of a convolution; channels of no unit
    stay. Where there are `lanes`, of each as many units go.
    """

    root: str
    channel_count: int
    producers: tuple[Member, ...]
    consumers: tuple[Member, ...]
    others: tuple[Member, ...]
    units: tuple[tuple[int, ...], ...]
    lanes: tuple[tuple[int, ...], ...] = ()
    of_heads: bool = False

    @property
    def unit(self) -> int:
        """How many channels a unit has."""
        return len(self.units[0])

    def units_by(self, score: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return what goes at once by the scores of the channels, [units, channels], the lowest first.

        Where there are lanes it is a unit of each, those of the same rank.
        """
        units = np.array(self.units, dtype=np.int64)
        if self.lanes:
            ranked = [
                np.array(lane)[np.argsort(score[units[list(lane)]].mean(axis=1), kind="stable")] for lane in self.lanes
            ]
            units = np.stack([units[lane] for lane in ranked], axis=1).reshape(len(ranked[0]), -1)
        return units[np.argsort(score[units].mean(axis=1), kind="stable")]


@dataclass(frozen=True)
class Coupling:
    """What can go of a module, and why other layers keep all that they write, by the names of layers."""

    groups: tuple[ChannelGroup, ...]
    reasons: Mapping[str, str]
    flow: Flow = field(repr=False)
    #: Class of each position, by the tensor that holds it and the axis; STAYS for those that cannot go.
    classes: Mapping[Place, Classes] = field(repr=False)

    def gone(self, cuts: Iterable[Cut], module: nn.Module) -> Gone:
        """Return which atoms go with the cuts."""
        found: set[int] = set()
        for one in cuts:
            classes = self.classes[written_by(one.layer, module)]
            found.update(classes[list(one.channels)].tolist())
        if STAYS in found:
            raise ValueError(f"channels of {[one.layer for one in cuts]} cannot go")
        return np.isin(self.flow.atoms.all_classes(), list(found))


def written_by(layer: str, module: nn.Module) -> Place:
    """Return the tensor and axis on which the channels lie that a layer writes."""
    role = role_of(module.get_submodule(layer))
    assert role is not None  # noqa: S101 — cuts are of layers that write channels
    return (layer, *role.writes)


def positions_of(groups: Iterable[ChannelGroup], cuts: Iterable[Cut]) -> dict[Place, set[int]]:
    """Return the positions that the cuts delete, by the name of the layer, its tensor and the axis."""
    channels_of = {one.layer: set(one.channels) for one in cuts}
    found: dict[Place, set[int]] = {}
    for group in groups:
        gone = channels_of.get(group.root, set())
        for member in (*group.producers, *group.consumers, *group.others):
            numbers = zip(member.positions, member.channels, strict=True)
            positions = found.setdefault((member.name, member.tensor, member.axis), set())
            positions.update(at for at, channel in numbers if channel in gone)
    return found


def parameters_of_channel(layers: Mapping[str, nn.Module], group: ChannelGroup) -> float:
    """Return how many parameters go with one channel of the group."""
    total = 0.0
    for member in (*group.producers, *group.consumers, *group.others):
        held = dict(layers[member.name].named_parameters(recurse=False)).get(member.tensor)
        if held is not None:
            total += held.numel() / held.shape[member.axis] * len(member.positions)
    return total / len(group.units) / group.unit


def reads_of(group: ChannelGroup, layers: Mapping[str, nn.Module]) -> tuple[Member, ...]:
    """Return all that reads the channels: consumers, and within a recurrent layer the next step and the next layer."""
    recurrent = (
        member
        for member in (*group.producers, *group.others)
        if member.axis == 1 and isinstance(layers[member.name], nn.RNNBase)
    )
    return (*group.consumers, *recurrent)


def entries_of(group: ChannelGroup, layers: Mapping[str, nn.Module]) -> tuple[Member, ...]:
    """Return the consumers, and of a recurrent layer that reads both ways the weight of the other way too."""
    both = (member for member in reads_of(group, layers) if member.tensor == "weight_ih_l0_reverse")
    return (*group.consumers, *both)
