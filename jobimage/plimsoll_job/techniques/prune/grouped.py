"""Convolutions in groups: a group can go as a whole, with what it reads and writes, as a head of attention can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from plimsoll_job.figures import CONVOLUTIONS
from plimsoll_job.techniques.prune.dependency import tp

#: Each channel is normalised by itself, by its own or by running statistics.
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def is_depthwise(layer: nn.Module) -> bool:
    """Tell whether the layer is a convolution that hands each channel on by itself."""
    return hands_on(layer) and group_width(layer) == 1


def is_grouped(layer: nn.Module) -> bool:
    """Tell whether the layer is a convolution in groups of several channels."""
    return isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and not is_depthwise(layer)


def hands_on(layer: nn.Module) -> bool:
    """Tell whether the layer is a convolution whose groups write as many channels as they read."""
    return isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and layer.in_channels == layer.out_channels


def group_width(layer: nn.Module) -> int:
    """Return how many channels a group of the convolution reads."""
    assert isinstance(layer, CONVOLUTIONS)  # noqa: S101 — what has groups is a convolution
    return layer.in_channels // layer.groups


class _GroupsPruner(tp.pruner.function.DepthwiseConvPruner):  # type: ignore[misc]
    """Cuts whole groups, inputs and outputs at once; being one function for both is what couples them in the graph."""

    def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
        """Cut the channels, which are whole groups."""
        groups = layer.groups - len(idxs) // group_width(layer)
        layer = super().prune_out_channels(layer, idxs)
        layer.groups = groups
        return layer

    prune_in_channels = prune_out_channels


class Graph(tp.DependencyGraph):  # type: ignore[misc]
    """torch-pruning's dependency graph, in which a grouped convolution hands its groups on."""

    def __init__(self) -> None:
        super().__init__()
        self._groups_pruner = _GroupsPruner()
        for known in (self._in_channel_pruning_fn, self._out_channel_pruning_fn):
            known.add(self._groups_pruner.prune_out_channels)

    def get_pruner_of_module(self, module: nn.Module) -> Any:
        """Return what cuts the layer."""
        if is_grouped(module) and hands_on(module):
            return self._groups_pruner
        if isinstance(module, INSTANCE_NORMS):
            # That of its own leaves running statistics as they are.
            return self.REGISTERED_PRUNERS[tp.ops.OPTYPE.BN]
        return super().get_pruner_of_module(module)
