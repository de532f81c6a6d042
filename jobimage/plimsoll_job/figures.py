"""Counts of a module: parameters, those that are not zero, and multiply-accumulates of one sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from plimsoll_job.load.architectures.graph import GraphModule
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.load.weights import tied

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTED = (*CONVOLUTIONS, nn.Linear)


@dataclass(frozen=True)
class ModuleFigures:
    """Counts of one module."""

    parameters: int
    nonzero: int
    macs: int


def has_weight(layer: nn.Module) -> bool:
    """Tell whether the layer is a convolution or a linear layer."""
    return isinstance(layer, WEIGHTED) or is_transposed(layer)


def is_transposed(layer: nn.Module) -> bool:
    """Tell whether the layer is the Conv1D of transformers' GPT-2: a linear layer whose weight is [in, out]."""
    kind = type(layer)
    # By name: transformers takes seconds to import, and most models are not of it.
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def count(module: nn.Module, signature: Signature) -> ModuleFigures:
    """Return the counts; multiply-accumulates are those of convolutions and linear layers."""
    if isinstance(module, GraphModule):
        counted = [(weight.size, int(np.count_nonzero(weight))) for weight in module.weights()]
        return ModuleFigures(
            parameters=sum(size for size, _ in counted),
            nonzero=sum(nonzero for _, nonzero in counted),
            macs=count_macs(module, signature),
        )
    parameters = list(module.parameters())
    return ModuleFigures(
        parameters=sum(parameter.numel() for parameter in parameters),
        nonzero=sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
        macs=count_macs(module, signature),
    )


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def weights_bytes(module: nn.Module) -> int:
    """Return the bytes of all weights and buffers, as a file holds them."""
    if isinstance(module, GraphModule):
        return module.size_bytes
    tensors = module.state_dict()
    return sum(tensors[names[0]].nbytes for names in tied(tensors))


def count_macs(module: nn.Module, signature: Signature) -> int:
    """Return the multiply-accumulates of one sample in convolutions and linear layers."""
    return sum(macs_by_layer(module, signature).values())


def macs_by_layer(module: nn.Module, signature: Signature) -> dict[str, int]:
    """Return the multiply-accumulates of one sample in each convolution and linear layer that is called, by name."""
    if isinstance(module, GraphModule):
        return module.macs_by_layer(example_of(signature, 1))
    macs: dict[str, int] = {}
    example = example_of(signature)

    def add(name: str, layer: nn.Module, _: object, output: torch.Tensor) -> None:
        weight = layer.get_parameter("weight")
        outputs = output.numel() // len(example[0])
        width = weight.shape[1] if is_transposed(layer) else weight.shape[0]
        macs[name] = macs.get(name, 0) + outputs * (weight.numel() // width)

    layers = [(name, layer) for name, layer in module.named_modules() if has_weight(layer)]
    hooks = [layer.register_forward_hook(partial(add, name)) for name, layer in layers]
    try:
        with torch.no_grad():
            module(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return macs
