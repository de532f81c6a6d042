"""Cutting positions out of a module's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plimsoll_job.figures import CONVOLUTIONS
from plimsoll_job.techniques.copying import copied
from plimsoll_job.techniques.prune.fitting import Fitting
from plimsoll_job.techniques.prune.groups import Coupling, Gone
from plimsoll_job.techniques.prune.roles import TRANSPOSED
from plimsoll_job.techniques.prune.run import names_of

M = TypeVar("M", bound=nn.Module)


def cut_out(module: M, example: Sequence[torch.Tensor], coupling: Coupling, gone: Gone) -> tuple[M, Any]:
    """Return a copy of the module without the positions of these classes, and its answers.

    NotCutError where no correction of sizes lets it compute as before on what is left.
    """
    tensors, changed = _cut_tensors(module, coupling, gone)
    left = copied(module, tensors)
    for layer in changed:
        declare(left.get_submodule(layer))
    _regroup(left, coupling, gone)
    return left, Fitting(left, example, coupling, gone).run()


def _cut_tensors(module: nn.Module, coupling: Coupling, gone: Gone) -> tuple[dict[int, torch.Tensor], list[str]]:
    """Return what is left of parameters and buffers, by the ids of those, and the layers that hold them."""
    held: dict[tuple[str, str], dict[int, NDArray[np.int64]]] = {}
    for (layer, name, axis), labels in coupling.flow.weights.items():
        is_gone = gone[labels.numpy()]
        if is_gone.any():
            held.setdefault((layer, name), {})[axis] = np.flatnonzero(~is_gone)
    tensors, layers = {}, []
    for places in names_of(module).values():
        if (kept := held.get(places[0][:2])) is None:
            continue
        value = getattr(module.get_submodule(places[0][0]), places[0][1])
        left = value.detach()
        for axis, positions in kept.items():
            left = left.index_select(axis, torch.from_numpy(positions))
        tensors[id(value)] = nn.Parameter(left, value.requires_grad) if isinstance(value, nn.Parameter) else left
        layers += [layer for layer, *_ in places]
    return tensors, layers


def declare(layer: Any) -> None:
    """Correct what a layer of torch remembers of the shapes of its weights."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED)):
        _declare_convolution(layer)
    elif isinstance(layer, nn.modules.batchnorm._NormBase):
        vector = layer.weight if layer.weight is not None else layer.running_mean
        layer.num_features = len(vector) if vector is not None else layer.num_features
    elif isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels = len(layer.weight)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
    elif isinstance(layer, nn.Embedding):
        layer.embedding_dim = layer.weight.shape[1]
    elif isinstance(layer, nn.RNNBase):
        hidden, inputs = layer.get_parameter("weight_hh_l0"), layer.get_parameter("weight_ih_l0")
        layer.hidden_size, layer.input_size = hidden.shape[1], inputs.shape[1]


def _declare_convolution(layer: Any) -> None:
    first, second = layer.weight.shape[:2]
    transposed = isinstance(layer, TRANSPOSED)
    if layer.groups > 1:
        # Groups keep their width, so that there are fewer of them.
        layer.groups = layer.groups * first // (layer.in_channels if transposed else layer.out_channels)
    if transposed:
        layer.in_channels, layer.out_channels = first, second * layer.groups
    else:
        layer.in_channels, layer.out_channels = second * layer.groups, first


def _regroup(module: nn.Module, coupling: Coupling, gone: Gone) -> None:
    """Correct how many groups are left where whole ones went."""
    for labels, layer in coupling.flow.grouped:
        norm = module.get_submodule(layer)
        is_gone = gone[labels.numpy()]
        left = (~is_gone).sum(axis=1)
        if isinstance(norm, nn.GroupNorm) and is_gone.any():
            norm.num_groups, norm.num_channels = int((left > 0).sum()), int(left.sum())
