"""How a layer is written as smaller ones: what they look like, and their weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from plimsoll_job.figures import CONVOLUTIONS
from plimsoll_job.techniques.copying import copied
from plimsoll_job.techniques.factorize.layers import as_linear
from plimsoll_job.techniques.shape import Split


class Product(nn.Sequential):
    """The layers that took the place of one; models that read that one's weight or bias find what it has become."""

    @property
    def weight(self) -> torch.Tensor:
        """The weight [out, in, …kernel] of the one layer that would answer as all of these do."""
        weights = [layer.get_parameter("weight") for layer in self]
        kernel = max((weight.shape[2:] for weight in weights), key=math.prod)
        product, *others = (weight.reshape(*weight.shape[:2], -1) for weight in weights)
        for other in others:
            # All but one of the kernels are of one position.
            product = torch.einsum("oik,ijl->ojkl", other, product).flatten(2)
        return product.reshape(*product.shape[:2], *kernel)

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias, which the last layer has."""
        return self[-1]._parameters["bias"]


def split(module: nn.Module, splits: Iterable[Split]) -> nn.Module:
    """Return a copy of the module in which each named layer is a Sequential of smaller ones, their weights not set."""
    module = copied(module)
    for one in splits:
        module.set_submodule(one.layer, smaller_layers(module.get_submodule(one.layer), one.ranks))
    return module


def smaller_layers(layer: nn.Module, ranks: Sequence[int]) -> Product:
    """Return the layers that take this one's place; the last one has its bias.

    A matrix becomes in → rank → out. A larger convolution becomes in → in rank by a 1x1 convolution, → out rank by one
    of the layer's own kernel, stride and padding, → out by another 1x1 convolution: padding with zeros and pointwise
    layers without a bias can change places. A side whose rank is its channels needs no 1x1 convolution.
    """
    layer = as_linear(layer)
    if isinstance(layer, nn.Linear):
        options: dict[str, Any] = {"dtype": layer.weight.dtype, "device": layer.weight.device}
        (rank,) = ranks
        layers: list[nn.Module] = [
            nn.Linear(layer.in_features, rank, bias=False, **options),
            nn.Linear(rank, layer.out_features, bias=layer.bias is not None, **options),
        ]
    elif isinstance(layer, CONVOLUTIONS):
        layers = _convolutions(layer, ranks)
    else:
        raise TypeError(f"{type(layer).__name__} cannot be split")
    split_layers = Product(*layers).train(layer.training)
    return split_layers.requires_grad_(layer.weight.requires_grad)


def set_weights(layers: nn.Sequential, factors: Sequence[torch.Tensor], bias: torch.Tensor | None) -> None:
    """Give the layers their weights, in any shape of the right number of elements, and the last one its bias."""
    with torch.no_grad():
        for layer, factor in zip(layers, factors, strict=True):
            weight = layer.get_parameter("weight")
            weight.copy_(factor.reshape(weight.shape))
        if bias is not None:
            layers[-1].get_parameter("bias").copy_(bias)


def _convolutions(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, ranks: Sequence[int]) -> list[nn.Module]:
    kind: Any = type(layer)
    options = {"dtype": layer.weight.dtype, "device": layer.weight.device}
    geometry = {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "padding_mode": layer.padding_mode,
    }
    inner, outer = ranks[0], ranks[-1]
    biased = layer.bias is not None
    if len(ranks) == 1:
        return [
            kind(layer.in_channels, inner, bias=False, **geometry, **options),
            kind(outer, layer.out_channels, 1, bias=biased, **options),
        ]
    narrows, widens = inner < layer.in_channels, outer < layer.out_channels
    first = [kind(layer.in_channels, inner, 1, bias=False, **options)] if narrows else []
    core = kind(inner, outer, bias=biased and not widens, **geometry, **options)
    last = [kind(outer, layer.out_channels, 1, bias=biased, **options)] if widens else []
    return [*first, core, *last]
