"""What the products of integers in a graph ask of a processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto

from plimsoll_api.artifact import ProcessorFeature
from plimsoll_job.export.lean import LeanModel

#: The largest weight that no sum of two products with activations of 8 bits carries beyond 16 bits: x86-64 processors
#: without VNNI add two at a time, and saturate.
SAFE_WEIGHT = 64
#: Operators that multiply integers, and those that ONNX Runtime makes such of where all they read was dequantized.
OF_INTEGERS = frozenset(
    {
        "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat",
        "QAttention", "QGemm", "QLinearConv", "QLinearMatMul",
    }
)  # fmt: skip
OF_DEQUANTIZED = frozenset({"Conv", "Gemm", "MatMul"})
#: What may lie between a stored weight and the product.
MOVES = frozenset({"DequantizeLinear", "Identity", "Reshape", "Transpose", "Unsqueeze"})


def required_features(model: LeanModel) -> list[ProcessorFeature]:
    """Return what a processor must have for the sums of the graph's products to be exact."""
    signed = {
        constant.name: constant
        for constant in model.proto.graph.initializer
        if constant.data_type == TensorProto.INT8 and len(constant.dims) > 1
    }
    for name in _weights_of_products(model.proto.graph):
        if name in signed:
            weights = model.array(signed[name])
            if weights.size and max(int(weights.max()), -int(weights.min())) > SAFE_WEIGHT:
                return [ProcessorFeature.VNNI]
    return []


def _weights_of_products(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of what products of integers read, where it comes from."""
    sources = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        ways = [_way(name, sources) for name in node.input if name]
        if node.op_type in OF_INTEGERS or (
            node.op_type in OF_DEQUANTIZED and all("DequantizeLinear" in passed for _, passed in ways[:2])
        ):
            yield from (origin for origin, _ in ways)


def _way(name: str, sources: Mapping[str, onnx.NodeProto]) -> tuple[str, list[str]]:
    """Return where the value comes from, and the operators on the way that move numbers only."""
    passed = []
    while name in sources and sources[name].op_type in MOVES:
        passed.append(sources[name].op_type)
        name = sources[name].input[0]
    return name, passed
