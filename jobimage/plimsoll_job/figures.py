"""Counts of a module: parameters, those that are not zero, and multiply-accumulates of one sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import module_of, name_nodes
from plimsoll_job.export.lean import read_lean
from plimsoll_job.export.macs import Macs, count_graph
from plimsoll_job.export.onnx_export import trace_named
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
    macs: int | None
    #: Why multiply-accumulates are not known, where they are not.
    macs_unknown: str | None = None


def has_weight(layer: nn.Module) -> bool:
    """Tell whether the layer is a convolution or a linear layer; one without outputs or inputs holds no numbers."""
    return (isinstance(layer, WEIGHTED) or is_transposed(layer)) and layer.get_parameter("weight").numel() > 0


def is_transposed(layer: nn.Module) -> bool:
    """Tell whether the layer is the Conv1D of transformers' GPT-2: a linear layer whose weight is [in, out]."""
    kind = type(layer)
    # By name: transformers takes seconds to import, and most models are not of it.
    return kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"


def count(module: nn.Module, signature: Signature, graph: Path | None = None) -> ModuleFigures:
    """Return the counts; multiply-accumulates are those of the file where the model is written already."""
    if isinstance(module, GraphModule):
        counted = [(weight.size, int(np.count_nonzero(weight))) for weight in module.weights()]
    else:
        counted = [(one.numel(), int(torch.count_nonzero(one))) for one in module.parameters()]
    macs = count_macs(module, signature, graph)
    return ModuleFigures(
        parameters=sum(size for size, _ in counted),
        nonzero=sum(nonzero for _, nonzero in counted),
        macs=macs.total,
        macs_unknown=macs.unknown[0] if macs.unknown else None,
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


def count_macs(module: nn.Module, signature: Signature, graph: Path | None = None) -> Macs:
    """Return the multiply-accumulates of one sample, by the nodes of the module's ONNX graph, or of the file's."""
    model = trace_named(module, signature) if graph is None else read_lean(graph)
    name_nodes(model.proto)
    # A model that came as a graph keeps its own names.
    names = module.input_names if isinstance(module, GraphModule) else [one.name for one in signature]
    sample = zip(names, example_of(signature, 1), strict=True)
    return count_graph(model, {name: tensor.numpy() for name, tensor in sample})


def macs_by_layer(module: nn.Module, signature: Signature, spec_field: str) -> dict[str, int]:
    """Return the multiply-accumulates of one sample, by the modules in which they are computed.

    UserError that names the field where they cannot be counted.
    """
    counted = count_macs(module, signature)
    if counted.unknown:
        raise UserError(
            f"{spec_field}: the model's multiply-accumulates cannot be counted: {counted.unknown[0]}; take an "
            "amount of Parameters or Bytes",
            reason="NotCounted",
        )
    modules = {name for name, _ in module.named_modules()}
    macs: dict[str, int] = {}
    for node, number in counted.by_node.items():
        name = module_of(node, modules)
        macs[name] = macs.get(name, 0) + number
    return macs


def called_layers(module: nn.Module, signature: Signature) -> set[str]:
    """Return the names of the convolutions and linear layers that are called."""
    called: set[str] = set()
    layers = [(name, layer) for name, layer in module.named_modules() if has_weight(layer)]
    hooks = [layer.register_forward_hook(lambda *_, name=name: called.add(name)) for name, layer in layers]
    try:
        with torch.no_grad():
            module(*example_of(signature))
    finally:
        for hook in hooks:
            hook.remove()
    return called
