"""How a layer reads channels: its weight as [outputs, channels, spread], its input as rows of channels.

A convolution multiplies each channel by a kernel, a linear layer after a flattened image by one weight a pixel. Either
way, whatever linear combination holds between channels at every place also holds in what the layer makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import nn

from plimsoll_job.figures import CONVOLUTIONS
from plimsoll_job.techniques.observe import rows_of
from plimsoll_job.techniques.prune.groups import ChannelGroup, Member, entries_of
from plimsoll_job.techniques.prune.roles import TRANSPOSED


@dataclass(frozen=True)
class Reader:
    """One layer that reads channels; `spread` neighbouring inputs of a linear layer are the pixels of one channel."""

    name: str
    channel_count: int
    convolves: bool
    #: The layer's bias can carry the mean of what is gone; with padding the borders would see another mean.
    takes_mean: bool
    spread: int = 1
    tensor: str = "weight"
    #: The axis of its tensor on which the channels are; the other one of the first two is that of its outputs.
    axis: int = 1
    #: Tensors that read the same along the same axis, and write other outputs: a recurrent layer reads both ways.
    also: tuple[str, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """All tensors that read, in the order of their outputs."""
        return (self.tensor, *self.also)

    @property
    def place(self) -> tuple[str, str, int]:
        """The tensor and axis that read, as `positions_of` names them."""
        return self.name, self.tensor, self.axis

    def places_of(self, group: ChannelGroup, member: Member) -> list[list[int]]:
        """Return, for each unit of the group, which of this layer's channels are of it."""
        unit_of = {channel: number for number, unit in enumerate(group.units) for channel in unit}
        places: list[set[int]] = [set() for _ in group.units]
        for position, channel in zip(member.positions, member.channels, strict=True):
            places[unit_of[channel]].add(position // self.spread)
        return [sorted(of_unit) for of_unit in places]

    def rows(self, inputs: torch.Tensor, counted: torch.Tensor | None = None) -> torch.Tensor:
        """Return the layer's input as [rows, channels]: one row for each sample, place and time step that counts.

        The input may have lost channels.
        """
        rows = rows_of(inputs, 1 if self.convolves else -1, counted)
        return rows.reshape(len(rows), -1, self.spread).transpose(1, 2).flatten(0, 1)

    def weight(self, layer: nn.Module) -> torch.Tensor:
        """Return the layer's weight as float64 [outputs, channels, spread or places of the kernel]."""
        weight = torch.cat([layer.get_parameter(one).detach().double().movedim(self.axis, 1) for one in self.tensors])
        # A layer may have no outputs: then the sizes do not tell each other.
        spread = math.prod(weight.shape[1:]) // self.channel_count
        return weight.reshape(len(weight), self.channel_count, spread)

    def put(self, layer: nn.Module, weight: torch.Tensor) -> None:
        """Give the layer a weight as `weight` returns it."""
        seen = [layer.get_parameter(one).detach().movedim(self.axis, 1) for one in self.tensors]
        for one, part in zip(seen, weight.split([len(one) for one in seen]), strict=True):  # type: ignore[no-untyped-call]
            one.copy_(part.reshape(one.shape))

    def outputs_lost(self, gone: Mapping[tuple[str, str, int], Set[int]], layer: nn.Module) -> set[int]:
        """Return which of the outputs of `weight` are gone, by the positions that are gone of tensors."""
        lost, before = set[int](), 0
        for one in self.tensors:
            lost |= {before + output for output in gone.get((self.name, one, 1 - self.axis), ())}
            before += layer.get_parameter(one).shape[1 - self.axis]
        return lost

    def effect(self, layer: nn.Module) -> torch.Tensor:
        """Return W'W: times the second moments of the channels it sums to the energy of the layer's output."""
        weight = self.weight(layer)
        return torch.einsum("ocs,ods->cd", weight, weight)


def readers_of(module: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, Reader]:
    """Return a reader for each consumer of the groups, by name."""
    layers = dict(module.named_modules())
    members: dict[str, list[Member]] = {}
    for group in groups:
        for member in entries_of(group, layers):
            members.setdefault(member.name, []).append(member)
    return {name: _reader(name, layers[name], reading) for name, reading in members.items()}


def _reader(name: str, layer: nn.Module, members: Sequence[Member]) -> Reader:
    member = members[0]
    if isinstance(layer, CONVOLUTIONS):
        unpadded = layer.padding == "valid" or not any(layer.padding)
        return Reader(name, layer.in_channels, convolves=True, takes_mean=layer.bias is not None and unpadded)
    if not isinstance(layer, nn.Linear):
        # A transposed convolution does not write each place from as many others; a recurrent layer has biases of gates.
        count = layer.get_parameter(member.tensor).shape[member.axis]
        convolves = isinstance(layer, TRANSPOSED)
        also = tuple(dict.fromkeys(one.tensor for one in members if one.tensor != member.tensor))
        return Reader(name, count, convolves, takes_mean=False, tensor=member.tensor, axis=member.axis, also=also)
    takes_mean = layer.bias is not None
    spreads = {_spread(member) for member in members}
    spread = spreads.pop() if len(spreads) == 1 else 1
    return Reader(name, layer.in_features // spread, convolves=False, takes_mean=takes_mean, spread=spread)


def _spread(member: Member) -> int:
    """Return how many neighbouring positions are one channel everywhere, 1 when they are not such blocks."""
    channel_at = dict(zip(member.positions, member.channels, strict=True))
    spread = len(channel_at) // len(set(member.channels))
    in_blocks = all(channel_at.get(position // spread * spread) == channel for position, channel in channel_at.items())
    return spread if in_blocks else 1
