"""Which channels go together: torch-pruning's dependency graph, and the heads of attention, behind our own types."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from plimsoll_job.figures import CONVOLUTIONS, WEIGHTED
from plimsoll_job.load.inputs import Signature
from plimsoll_job.techniques.prune.attention import Attention, cut_heads, find_attentions
from plimsoll_job.techniques.prune.dependency import tp
from plimsoll_job.techniques.prune.plain import with_plain_layers
from plimsoll_job.techniques.prune.tracing import Closed, trace
from plimsoll_job.techniques.shape import Cut


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
    output is read by nobody, so it is no group. Of attention `unit` neighbouring channels, a head, go at once.
    """

    root: str
    channel_count: int
    producers: tuple[Member, ...]
    consumers: tuple[Member, ...]
    others: tuple[Member, ...] = ()
    unit: int = 1


def find_groups(module: nn.Module, signature: Signature) -> list[ChannelGroup]:
    """Return the groups of channels that may be deleted, in the order in which their roots stand in the module.

    The module is one of plain layers. A depthwise convolution hands each channel on: it goes with it, and reads
    nothing. What a grouped convolution reads or writes stays whole; so does what an attention reads or writes, the
    width that all layers of a transformer share.
    """
    graph = trace(module, signature)
    layers = dict(module.named_modules())
    names = {layer: name for name, layer in layers.items()}
    attentions = find_attentions(module)
    parts = {name for attention in attentions for name in (*attention.reads, attention.writes)}
    groups = [_group_of_heads(attention) for attention in attentions]
    for found in _follow(graph):
        if any(is_grouped(layer := item.dep.target.module) or isinstance(layer, Closed) for item in found):
            continue
        group = _group(found, graph, names)
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
            reads = graph.is_in_channel_pruning_fn(item.dep.handler) and not _is_depthwise(layer)
            side, axis = (consumers, 1) if reads else (producers, 0)
        else:
            side, axis = others, 0
        side.append(Member(names[layer], axis, tuple(item.idxs), tuple(item.root_idxs)))
    root = found[0].dep.target.module
    return ChannelGroup(names[root], len(found[0].idxs), tuple(producers), tuple(consumers), tuple(others))


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
    )


def is_grouped(layer: nn.Module) -> bool:
    """Tell whether the layer is a convolution in groups of several channels, which cannot lose single ones."""
    return isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and not _is_depthwise(layer)


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

    A further cut of a layer counts its channels as those before it left them.
    """
    module = with_plain_layers(copy.deepcopy(module))
    for turn in _turns(cuts):
        _cut_once(module, signature, turn)
    return module.eval()


def _turns(cuts: Iterable[Cut]) -> Iterator[list[Cut]]:
    """Yield the cuts in their order, of each layer once at a time."""
    turn: dict[str, Cut] = {}
    for one in cuts:
        if one.layer in turn:
            yield list(turn.values())
            turn = {}
        turn[one.layer] = one
    if turn:
        yield list(turn.values())


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


def _is_depthwise(layer: nn.Module) -> bool:
    return (
        isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels
    )
