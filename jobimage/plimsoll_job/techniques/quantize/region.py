"""Which nodes of a graph compute in int8: the layers, and what lies between convolutions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

import onnx
from onnx import TensorProto

from plimsoll_job.techniques.quantize.layers import CONVOLUTIONS, RECURRENT, Layer

#: What ONNX Runtime has integer kernels for, or moves integers by, and which changes no scale by itself.
JOINING = frozenset(
    {
        "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Relu",
        "Reshape", "Resize", "Sigmoid", "Split", "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
#: What has no integer kernel, and is rounded before and after where only sums read it, as where a block adds its input
#: to its convolutions: else all of these sums would be computed in float.
SUMMED = frozenset({"BatchNormalization"})
#: What a convolution does itself as it rounds its answer.
CLIPPING = frozenset({"Relu", "Clip"})


def int8_nodes(graph: onnx.GraphProto, layers: Collection[Layer], kept: Collection[str] = ()) -> set[str]:
    """Return the names of the nodes that compute in int8 when these layers do; what is `kept` stays float.

    Beside the layers these are the nodes that lie between: all they read comes in int8 from a convolution, and some
    layer reads what becomes of it. Linear layers answer in float, so nothing joins between those of a transformer, also
    where a convolution cuts its patches.
    """
    chosen = {layer.node for layer in layers if layer.operator not in RECURRENT}
    convolutions = {layer.node for layer in layers if layer.operator in CONVOLUTIONS}
    floats = _float_values(graph)
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    # In the order of the graph, which is that of the data.
    rounded = {name for node in graph.node if node.name in convolutions for name in node.output}
    joined = []
    for node in graph.node:
        read = [name for name in node.input if name in floats]
        summed = node.op_type in SUMMED and all(one.op_type == "Add" for one in readers[node.output[0]])
        joins = (node.op_type in JOINING or summed) and node.name not in kept
        if joins and read and all(name in rounded for name in read):
            joined.append(node)
            rounded |= set(node.output)
    taken = set(chosen)
    of_convolutions = {name for node in graph.node if node.name in convolutions for name in node.output}
    for node in reversed(joined):
        clips = node.op_type in CLIPPING and node.input[0] in of_convolutions and len(readers[node.input[0]]) == 1
        if clips or any(reader.name in taken for name in node.output for reader in readers[name]):
            taken.add(node.name)
    return taken


def read_floats_as_they_are(graph: onnx.GraphProto, taken: Collection[str]) -> None:
    """Have nodes that compute in float read what nodes in float answered, which others read rounded.

    One value is rounded for all its readers otherwise: also for the sum that leads around a block.
    """
    sources = {name: node for node in graph.node for name in node.output}
    before = {}
    for node in graph.node:
        rounding = sources.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if rounding is not None and rounding.op_type == "QuantizeLinear":
            value = rounding.input[0]
            if value not in sources or sources[value].name not in taken:
                before[node.output[0]] = value
    for node in graph.node:
        if node.name not in taken and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            for at, name in enumerate(node.input):
                node.input[at] = before.get(name, name)


def _float_values(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the float values that are computed, or given to the model."""
    constants = {constant.name for constant in graph.initializer}
    values: Iterable[onnx.ValueInfoProto] = (*graph.value_info, *graph.output, *graph.input)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return {name for name, kind in kinds.items() if kind == TensorProto.FLOAT} - constants
