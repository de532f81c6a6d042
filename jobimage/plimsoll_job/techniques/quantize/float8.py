"""Float8 weights: E4M3 with one scale an output channel (Micikevicius et al. 2022, arXiv 2209.05433)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.layers import Layer

#: The largest number of E4M3, without infinities.
LARGEST = 448.0
#: The first operator set that knows the format.
OPSET = 19


def to_float8(model: FloatModel, layers: Collection[Layer], _: bytes | None) -> onnx.ModelProto:
    """Return the model with the weights of these layers in float8, restored to float32 where they are used."""
    changed = version_converter.convert_version(model.copy(), OPSET)
    constants = {constant.name: constant for constant in changed.graph.initializer}
    nodes = {node.name: node for node in changed.graph.node}
    axes = {layer.weight: _output_axis(nodes[layer.node], len(constants[layer.weight].dims)) for layer in layers}
    restored = []
    for name, axis in axes.items():
        weight = numpy_helper.to_array(constants[name])
        others = tuple(other for other in range(weight.ndim) if other != axis)
        scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True) / np.float32(LARGEST), np.float32(1e-30))
        stored = (weight / scale).astype(helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN))
        constants[name].CopyFrom(
            helper.make_tensor(
                f"{name}_stored",
                TensorProto.FLOAT8E4M3FN,
                weight.shape,
                np.ascontiguousarray(stored).tobytes(),
                raw=True,
            )
        )
        changed.graph.initializer.append(numpy_helper.from_array(scale.ravel(), f"{name}_scale"))
        restored.append(helper.make_node("DequantizeLinear", [f"{name}_stored", f"{name}_scale"], [name], axis=axis))
    before = list(changed.graph.node)
    del changed.graph.node[:]
    changed.graph.node.extend([*restored, *before])
    return changed


def _output_axis(node: onnx.NodeProto, rank: int) -> int:
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    if node.op_type == "ConvTranspose":
        return 1
    return rank - 1 if node.op_type in ("MatMul", "Gemm") and not transposed else 0
