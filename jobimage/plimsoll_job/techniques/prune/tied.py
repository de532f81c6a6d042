"""Layers that share weights lose the same channels: to the graph of channels each is coupled with the other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

from torch import nn

from plimsoll_job.figures import WEIGHTED
from plimsoll_job.techniques.prune.dependency import tp
from plimsoll_job.techniques.ties import ties_of


def couple_tied(graph: tp.DependencyGraph, module: nn.Module) -> None:
    """Let what goes of one layer go of each layer that shares the tensor which it goes of."""
    layers = dict(module.named_modules())
    for names in ties_of(module):
        owners = [layers[name.rpartition(".")[0]] for name in names]
        axes = range(module.get_parameter(names[0]).ndim)
        for one, other in permutations([owner for owner in owners if owner in graph.module2node], 2):
            source, target = graph.module2node[one], graph.module2node[other]
            cutters = _cutters(graph, one), _cutters(graph, other)
            for axis in axes:
                trigger, handler = (of_layer.get(axis) for of_layer in cutters)
                if trigger is not None and handler is not None:
                    coupled = tp.dependency.Dependency(trigger, handler, source=source, target=target)
                    source.dependencies.append(coupled)


def _cutters(graph: tp.DependencyGraph, layer: nn.Module) -> Mapping[int, Any]:
    """Return what cuts the layer along each axis of its weight, and of all that has one axis only along that."""
    pruner = graph.get_pruner_of_module(layer)
    if isinstance(layer, WEIGHTED):
        return {0: pruner.prune_out_channels, 1: pruner.prune_in_channels}
    return {1 if isinstance(layer, nn.Embedding) else 0: pruner.prune_out_channels}
