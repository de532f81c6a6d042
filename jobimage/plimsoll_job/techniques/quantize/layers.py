"""The layers of an ONNX graph: nodes with constant weights, named as the modules that they come from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from plimsoll_job.export.graph import module_of
from plimsoll_job.export.lean import LeanModel

#: At which inputs an operator takes its weight, the likelier place first.
WEIGHT_INPUTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1,),
    "MatMul": (1, 0),
    "Gather": (0,),
    "LSTM": (1,),
    "GRU": (1,),
    "RNN": (1,),
}
LINEAR = frozenset({"Gemm", "MatMul"})
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})

#: What a scheme appends to the name of a weight that it stores in another format.
STORED_SUFFIXES = ("_quantized", "_Q4", "_stored")
FLOAT = "float32"
DTYPES = {
    TensorProto.FLOAT: FLOAT,
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT8E4M3FN: "float8",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
}
#: Two weights a byte, the middle of their range stored as 8.
INT4, INT4_ZERO = "int4", 8


@dataclass(frozen=True)
class Layer:
    """One node with a constant weight: its name in the graph, its module's, and that of the weight."""

    node: str
    name: str
    operator: str
    weight: str
    #: Whether a product is of a stack of matrices, one for each entry of further axes.
    stacked: bool = False
    #: Of a recurrent layer: what its state before is multiplied with.
    of_state: str | None = None
    #: Whether a convolution's channels are in groups.
    grouped: bool = False

    @property
    def weights(self) -> tuple[str, ...]:
        """The names of all weights that the node multiplies with."""
        return (self.weight,) if self.of_state is None else (self.weight, self.of_state)


def find_layers(model: onnx.ModelProto, modules: Collection[str]) -> tuple[Layer, ...]:
    """Return the layers in the order of the graph; the nodes must have names."""
    matrices = {
        constant.name: len(constant.dims)
        for constant in model.graph.initializer
        if constant.data_type == TensorProto.FLOAT and len(constant.dims) > 1
    }
    layers = []
    for node in model.graph.node:
        places = [at for at in WEIGHT_INPUTS.get(node.op_type, ()) if at < len(node.input)]
        weight = next((node.input[at] for at in places if node.input[at] in matrices), None)
        of_state = node.input[2] if node.op_type in RECURRENT else None
        if weight is not None and (of_state is None or of_state in matrices):
            grouped = any(one.name == "group" and one.i > 1 for one in node.attribute)
            stacked = node.op_type == "MatMul" and weight == node.input[1] and matrices[weight] > 2
            module = module_of(node.name, modules)
            layers.append(Layer(node.name, module, node.op_type, weight, stacked, of_state, grouped))
    return tuple(layers)


def is_within(layer: Layer, module: str) -> bool:
    """Return whether the layer is the module, lies within it, or is the node of that name."""
    return _is_within(layer.name, layer.node, module)


def nodes_within(graph: onnx.GraphProto, modules: Collection[str], excluded: Collection[str]) -> frozenset[str]:
    """Return the names of all nodes of these modules, of whatever operator, and the nodes that are named themselves."""
    return frozenset(
        node.name
        for node in graph.node
        if any(_is_within(module_of(node.name, modules), node.name, module) for module in excluded)
    )


def _is_within(name: str, node: str, module: str) -> bool:
    return module in (name, node) or name.startswith((f"{module}.", f"{module}/"))


def stored_types(model: LeanModel, layers: Collection[Layer]) -> dict[str, str]:
    """Return the format in which each layer's weight lies in the quantized model, by the layer's node."""
    return {layer.node: _dtype(_stored(model, layer.weight)) for layer in layers}


def input_ranges(model: LeanModel, layers: Collection[Layer]) -> dict[str, tuple[float, float]]:
    """Return the range of the integers in which each layer gets its activations, by the layer's node."""
    graph = model.proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    sources = {name: node for node in graph.node for name in node.output}
    nodes = {node.name: node for node in graph.node}
    found = {}
    for layer in layers:
        for name in nodes[layer.node].input[:2] if layer.node in nodes else ():
            source = sources.get(name)
            if source is None or source.op_type != "DequantizeLinear" or source.input[0] in constants:
                continue
            scale, zero = (model.array(constants[one]) for one in source.input[1:3])
            info = np.iinfo(zero.dtype)
            low, high = ((end - int(zero)) * float(scale) for end in (info.min, info.max))
            found[layer.node] = (low, high)
    return found


def count_zero_weights(model: LeanModel, layers: Collection[Layer]) -> int:
    """Return how many weights of the layers are zero as they are stored; what pads blocks of 4 bits counts too."""
    constants = {constant.name: constant for constant in model.proto.graph.initializer}
    stored = {weight: _stored(model, weight) for layer in layers for weight in layer.weights}
    return sum(
        _zeros(model, constant, constants.get(constant.name.replace("_quantized", "_zero_point")))
        for constant in stored.values()
    )


def _stored(model: LeanModel, weight: str) -> TensorProto:
    """Return the constant that holds the weight; a copy made for one node has a longer name of the same beginning."""
    constants = model.proto.graph.initializer
    own = [constant for constant in constants if constant.name == weight]
    made = [
        constant
        for constant in constants
        if constant.name.startswith(f"{weight}_") and constant.name.endswith(STORED_SUFFIXES)
    ]
    return min(own or made, key=lambda constant: len(constant.name))


def _dtype(constant: TensorProto) -> str:
    return INT4 if constant.name.endswith("_Q4") else DTYPES[constant.data_type]


def _zeros(model: LeanModel, constant: TensorProto, zero_point: TensorProto | None) -> int:
    values = model.array(constant)
    if _dtype(constant) == INT4:
        return int((values % 16 == INT4_ZERO).sum() + (values // 16 == INT4_ZERO).sum())
    zero = 0 if zero_point is None else int(model.array(zero_point).flat[0])
    return int((values == zero).sum())
