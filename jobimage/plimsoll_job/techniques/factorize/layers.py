"""Which layers can be factorized, and what each costs before and after."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from plimsoll_job.figures import CONVOLUTIONS, WEIGHTED, has_weight, is_transposed
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature


@dataclass(frozen=True)
class Target:
    """One layer that can be factorized, with the positions of one sample at which it reads and writes channels.

    A layer whose weight is [in, out] stands here as the linear layer that it is.
    """

    name: str
    layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    positions_in: int
    positions_out: int

    @property
    def is_matrix(self) -> bool:
        """Whether the layer is a matrix at each position, rather than a convolution over several."""
        return self.layer.weight[0, 0].numel() == 1

    @property
    def parameters(self) -> int:
        """The parameters of the layer as it is."""
        return sum(parameter.numel() for parameter in self.layer.parameters())

    @property
    def macs(self) -> int:
        """The multiply-accumulates of one sample in the layer as it is."""
        return self.layer.weight.numel() * self.positions_out

    def factor_parameters(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the parameters of the factors of these ranks, given as [n, 1] or [n, 2]."""
        bias = 0 if self.layer.bias is None else self.layer.bias.numel()
        return sum(self._factor_sizes(ranks), np.zeros(len(ranks), dtype=np.int64)) + bias

    def factor_macs(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the multiply-accumulates of one sample in the factors of these ranks, given as [n, 1] or [n, 2]."""
        sizes = self._factor_sizes(ranks)
        # A matrix reads only what it needs at its stride; the first factor of a convolution reads every position.
        first_positions = self.positions_out if self.is_matrix else self.positions_in
        return sizes[0] * first_positions + sum(sizes[1:]) * self.positions_out

    def _factor_sizes(self, ranks: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        outputs, inputs, *kernel = self.layer.weight.shape
        inner, outer = ranks[:, 0], ranks[:, -1]
        if self.is_matrix:
            return [inputs * inner, outer * outputs]
        narrows, widens = inner < inputs, outer < outputs
        return [inputs * inner * narrows, inner * outer * math.prod(kernel), outer * outputs * widens]


def find_targets(module: nn.Module, signature: Signature) -> tuple[list[Target], dict[str, str]]:
    """Return the layers that can be factorized, and why each other layer with weights is left as it is."""
    paths = Counter(id(layer) for _, layer in module.named_modules(remove_duplicate=False))
    owners = Counter(id(weight) for layer in module.modules() for weight in layer.parameters(recurse=False))
    called = _positions(module, signature)
    targets, left = [], {}
    for name, layer in module.named_modules():
        if not has_weight(layer):
            continue
        if reason := _hindrance(name, layer, paths, owners, called):
            left[name] = reason
        else:
            targets.append(Target(name, as_linear(layer), *called[name]))
    return targets, left


def as_linear(layer: nn.Module) -> Any:
    """Return the layer; one whose weight is [in, out] as a linear layer of the same weight."""
    if not is_transposed(layer):
        return layer
    weight = layer.get_parameter("weight").detach().T
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight), layer.get_parameter("bias")
    return linear.train(layer.training).requires_grad_(layer.get_parameter("weight").requires_grad)


def _hindrance(
    name: str, layer: nn.Module, paths: Counter[int], owners: Counter[int], called: Mapping[str, tuple[int, int]]
) -> str | None:
    if not name:
        return "it is the whole model"
    # A subclass may do anything with its weight, and the layer that it is part of may too.
    if type(layer) not in WEIGHTED and not is_transposed(layer):
        return f"{type(layer).__name__} is no plain layer of torch"
    if paths[id(layer)] > 1 or owners[id(layer.weight)] > 1:
        return "it shares its weight with another layer"
    if name not in called:
        return "the model reads its weight instead of calling it"
    if isinstance(layer, CONVOLUTIONS) and layer.groups > 1:
        return f"its {layer.groups} groups are a factorization already"
    return None


def _positions(module: nn.Module, signature: Signature) -> dict[str, tuple[int, int]]:
    """Return at how many positions of one sample each layer reads and writes, over all its calls, if there are any."""
    seen: dict[str, tuple[int, int]] = {}
    example = example_of(signature)

    def add(name: str, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        outputs_per_position, inputs_per_position = as_linear(layer).weight.shape[:2]
        groups = layer.groups if isinstance(layer, CONVOLUTIONS) else 1
        read, written = seen.get(name, (0, 0))
        seen[name] = (
            read + inputs[0].numel() // (inputs_per_position * groups) // len(example[0]),
            written + output.numel() // outputs_per_position // len(example[0]),
        )

    layers = [(name, layer) for name, layer in module.named_modules() if has_weight(layer)]
    hooks = [layer.register_forward_hook(partial(add, name)) for name, layer in layers]
    try:
        with torch.no_grad():
            module(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
