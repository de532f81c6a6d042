"""Which channels go together: torch-pruning's dependency graph, and the heads of attention, behind our own types."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from torch import nn

from plimsoll_job.figures import WEIGHTED, called_layers
from plimsoll_job.load.inputs import Signature
from plimsoll_job.techniques.prune.attention import Attention, cut_heads, find_attentions
from plimsoll_job.techniques.prune.dependency import tp
from plimsoll_job.techniques.prune.grouped import group_width, hands_on, is_grouped
from plimsoll_job.techniques.prune.plain import put_plain_layers
from plimsoll_job.techniques.prune.tracing import Closed, trace
from plimsoll_job.techniques.shape import Cut
from plimsoll_job.techniques.ties import tie, ties_of


@dataclass(frozen=True)
class Member:
    """One layer of a group: position `positions[i]` on `axis` of its weight belongs to the channel `channels[i]`."""

    name: str
    axis: int
    positions: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can only be deleted together, numbered as the root layer's output channels.

    `producers` write the channels, `consumers` read them; `others`, such as normalisation, hand them on. The model's
    output is read by nobody, so it is no group. `unit` neighbouring channels go at once: those of a head of attention,
    or of a group of a convolution.
    """

    root: str
    channel_count: int
    producers: tuple[Member, ...]
    consumers: tuple[Member, ...]
    others: tuple[Member, ...] = ()
    unit: int = 1
    of_heads: bool = False


def find_groups(module: nn.Module, signature: Signature) -> list[ChannelGroup]:
    """Return the groups of channels that may be deleted, in the order in which their roots stand in the module.

    The module is one of plain layers. A depthwise convolution hands each channel on: it goes with it, and reads
    nothing; so does a grouped convolution with each group, where it reads as many channels as it writes. What others
    read or write stays whole; so does what an attention reads or writes, the
    width that all layers of a transformer share.
    """
    graph = trace(module, signature)
    layers = dict(module.named_modules())
    names = {layer: name for name, layer in layers.items()}
    attentions = find_attentions(module)
    parts = {name for attention in attentions for name in (*attention.reads, attention.writes)}
    # One whose weights are read without a call of their layer computes with widths of its own: its heads stay.
    called = called_layers(module, signature)
    groups = [_group_of_heads(attention) for attention in attentions if attention.writes in called]
    for found in _follow(graph):
        modules = {item.dep.target.module for item in found}
        grouped = [layer for layer in modules if is_grouped(layer)]
        if any(isinstance(layer, Closed) for layer in modules) or not all(map(hands_on, grouped)):
            continue
        group = _in_units(_group(found, graph, names), {names[layer]: group_width(layer) for layer in grouped})
        if group is None:
            continue
        members = (*group.producers, *group.consumers)
        # The graph takes what it does not know for elementwise: a sum over channels seems to lead them further.
        fits = all(max(one.positions) < layers[one.name].get_parameter("weight").shape[one.axis] for one in members)
        if group.consumers and fits and not parts & {one.name for one in members}:
            groups.append(group)
    place = {name: number for number, name in enumerate(layers)}
    return sorted(groups, key=lambda group: place[group.root])


def _follow(graph: tp.DependencyGraph) -> Iterator[tp.Group]:
    """Yield the group of all output channels of each convolution and linear layer, of each group once."""
    written: set[nn.Module] = set()
    for layer in list(graph.module2node):
        if not isinstance(layer, WEIGHTED) or layer in written:
            continue
        prune = graph.get_pruner_of_module(layer).prune_out_channels
        try:
            found = graph.get_pruning_group(layer, prune, list(range(layer.get_parameter("weight").shape[0])))
        # Through channels that are shuffled or split unevenly its index maps lead nowhere: such channels stay.
        except (IndexError, ZeroDivisionError):
            continue
        written.update(item.dep.target.module for item in found if graph.is_out_channel_pruning_fn(item.dep.handler))
        yield found


def _group(found: tp.Group, graph: tp.DependencyGraph, names: dict[nn.Module, str]) -> ChannelGroup:
    producers: list[Member] = []
    consumers: list[Member] = []
    others: list[Member] = []
    for item in found:
        layer = item.dep.target.module
        if layer not in names:
            continue
        if isinstance(layer, WEIGHTED):
            reads = graph.is_in_channel_pruning_fn(item.dep.handler) and not hands_on(layer)
            side, axis = (consumers, 1) if reads else (producers, 0)
        else:
            side, axis = others, 0
        side.append(Member(names[layer], axis, tuple(item.idxs), tuple(item.root_idxs)))
    root = found[0].dep.target.module
    return ChannelGroup(names[root], len(found[0].idxs), tuple(producers), tuple(consumers), tuple(others))


def _in_units(group: ChannelGroup, widths: Mapping[str, int]) -> ChannelGroup | None:
    """Return the group with the units in which it goes; none where convolutions do not group its channels alike."""
    members = [member for member in group.producers if member.name in widths]
    unit = max(widths.values(), default=1)
    alike = all(
        widths[member.name] == unit and position // unit == channel // unit
        for member in members
        for position, channel in zip(member.positions, member.channels, strict=True)
    )
    return replace(group, unit=unit) if alike and group.channel_count % unit == 0 else None


def _group_of_heads(attention: Attention) -> ChannelGroup:
    channels = tuple(range(attention.width))
    parts = 3 // len(attention.reads)
    rows = tuple(range(parts * attention.width))
    return ChannelGroup(
        attention.root,
        attention.width,
        tuple(Member(name, 0, rows, channels * parts) for name in attention.reads),
        (Member(attention.writes, 1, channels, channels),),
        unit=attention.head_width,
        of_heads=True,
    )


def positions_of(groups: Iterable[ChannelGroup], cuts: Iterable[Cut]) -> dict[tuple[str, int], set[int]]:
    """Return the positions that the cuts delete, by the name of the layer and the axis of its weight."""
    channels_of = {one.layer: set(one.channels) for one in cuts}
    found: dict[tuple[str, int], set[int]] = {}
    for group in groups:
        gone = channels_of.get(group.root, set())
        for member in (*group.producers, *group.consumers, *group.others):
            numbers = zip(member.positions, member.channels, strict=True)
            found.setdefault((member.name, member.axis), set()).update(at for at, channel in numbers if channel in gone)
    return found


def cut(module: nn.Module, signature: Signature, cuts: Iterable[Cut]) -> nn.Module:
    """Return a copy of plain layers without the channels; the same cuts on the same module give the same module.

    Weights that layers share stay shared, where they lose the same.
    """
    module = copy.deepcopy(module)
    put_plain_layers(module)
    ties = ties_of(module)
    for _, of_turn in groupby(cuts, key=lambda one: one.turn):
        _cut_once(module, signature, list(of_turn))
        tie(module, ties)
    return module.eval()


def _cut_once(module: nn.Module, signature: Signature, cuts: Sequence[Cut]) -> None:
    roots = {attention.root for attention in find_attentions(module)}
    of_heads = [one for one in cuts if one.layer in roots]
    if others := [one for one in cuts if one.layer not in roots]:
        _cut_channels(module, signature, others)
    for one in of_heads:
        attention = next(found for found in find_attentions(module) if found.root == one.layer)
        cut_heads(module, attention, one.channels)


def _cut_channels(module: nn.Module, signature: Signature, cuts: Sequence[Cut]) -> None:
    graph = trace(module, signature)
    layers = dict(module.named_modules())
    for one in cuts:
        layer = layers[one.layer]
        pruner = graph.get_pruner_of_module(layer)
        group = graph.get_pruning_group(layer, pruner.prune_out_channels, list(one.channels))
        group.prune(record_history=False)
