"""Which channels go together: torch-pruning's dependency graph behind our own types."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from plimsoll_job.errors import UserError
from plimsoll_job.figures import CONVOLUTIONS, WEIGHTED, example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.techniques.prune.dependency import tp
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

    `producers` write the channels, `consumers` read them. The model's output is read by nobody, so it is no group.
    """

    root: str
    channel_count: int
    producers: tuple[Member, ...]
    consumers: tuple[Member, ...]


def find_groups(module: nn.Module, signature: Signature) -> list[ChannelGroup]:
    """Return the groups of channels that may be deleted, in the order in which their roots stand in the module.

    A depthwise convolution hands each channel on: it goes with it, and reads nothing. What a grouped convolution reads
    or writes stays whole.
    """
    graph = trace(module, signature)
    names = {layer: name for name, layer in module.named_modules()}
    groups = []
    for found in graph.get_all_groups():
        if any(is_grouped(item.dep.target.module) for item in found):
            continue
        producers: list[Member] = []
        consumers: list[Member] = []
        for item in found:
            layer = item.dep.target.module
            if not isinstance(layer, WEIGHTED):
                continue
            reads = graph.is_in_channel_pruning_fn(item.dep.handler) and not _is_depthwise(layer)
            side, axis = (consumers, 1) if reads else (producers, 0)
            side.append(Member(names[layer], axis, tuple(item.idxs), tuple(item.root_idxs)))
        if consumers:
            root = found[0].dep.target.module
            groups.append(ChannelGroup(names[root], len(found[0].idxs), tuple(producers), tuple(consumers)))
    place = {name: number for number, name in enumerate(names.values())}
    return sorted(groups, key=lambda group: place[group.root])


def is_grouped(layer: nn.Module) -> bool:
    """Tell whether the layer is a convolution in groups of several channels, which cannot lose single ones."""
    return isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and not _is_depthwise(layer)


def positions_of(groups: Iterable[ChannelGroup], cuts: Iterable[Cut]) -> dict[tuple[str, int], set[int]]:
    """Return the positions that the cuts delete, by the name of the layer and the axis of its weight."""
    channels_of = {one.layer: set(one.channels) for one in cuts}
    found: dict[tuple[str, int], set[int]] = {}
    for group in groups:
        gone = channels_of.get(group.root, set())
        for member in (*group.producers, *group.consumers):
            numbers = zip(member.positions, member.channels, strict=True)
            found.setdefault((member.name, member.axis), set()).update(at for at, channel in numbers if channel in gone)
    return found


def cut(module: nn.Module, signature: Signature, cuts: Iterable[Cut]) -> nn.Module:
    """Return a copy of the module without the channels; the same cuts on the same module give the same module."""
    module = copy.deepcopy(module)
    graph = trace(module, signature)
    layers = dict(module.named_modules())
    for one in cuts:
        layer = layers[one.layer]
        pruner = graph.get_pruner_of_module(layer)
        group = graph.get_pruning_group(layer, pruner.prune_out_channels, list(one.channels))
        group.prune(record_history=False)
    return module.eval()


def _is_depthwise(layer: nn.Module) -> bool:
    return (
        isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels
    )


def trace(module: nn.Module, signature: Signature) -> tp.DependencyGraph:
    """Return torch-pruning's dependency graph; UserError for a model that it cannot follow."""
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        # The graph is traced by autograd: a frozen parameter would hide its layer.
        parameter.requires_grad_(True)
    # What stops the tracer on a module it does not know is of any type: its own checks, torch's, the module's code.
    try:
        with torch.enable_grad():
            return tp.DependencyGraph().build_dependency(module, example_of(signature), verbose=False)
    except Exception as error:
        raise UserError(
            f"spec.model.architecture: structured pruning cannot follow this model: {error}",
            reason="NotPrunable",
        ) from error
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
