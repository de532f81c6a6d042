"""Float8 weights: E4M3 with one scale an output channel (Micikevicius et al. 2022, arXiv 2209.05433)."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, version_converter

from plimsoll_job.export.graph import before_readers
from plimsoll_job.export.lean import LeanModel, Numbers
from plimsoll_job.techniques.quantize.float16_compute import compute_in_float16
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.layers import Layer

#: The largest number of E4M3, without infinities.
LARGEST = 448.0
#: The first operator set that knows the format.
OPSET = 19


def to_float8(model: FloatModel, layers: Collection[Layer], _: bytes | None) -> LeanModel:
    """Return the model that computes in float16, with the weights of these layers in float8.

    A session restores them as it is loaded: restored at each use, they would take longer than halves.
    """
    changed = model.lean()
    changed.proto = version_converter.convert_version(changed.proto, OPSET)
    graph = changed.proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    nodes = {node.name: node for node in graph.node}
    axes = {layer.weight: _output_axis(nodes[layer.node], len(constants[layer.weight].dims)) for layer in layers}
    sources = {name: changed.source(constants[name]) for name in axes}
    compute_in_float16(changed, model, layers)
    restored = {}
    for name, axis in axes.items():
        constant, source = constants[name], sources[name]
        computed = constant.data_type
        scale = _scale(source(), axis)
        changed.replace(constant, f"{name}_stored", TensorProto.FLOAT8E4M3FN, partial(_converted, source, scale))
        changed.add(f"{name}_scale", TensorProto.FLOAT, scale.shape, partial(np.asarray, scale))
        restored[name] = [
            helper.make_node("Cast", [f"{name}_stored"], [f"{name}_unscaled"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_unscaled", f"{name}_scale"], [f"{name}_restored"]),
            helper.make_node("Cast", [f"{name}_restored"], [name], to=computed),
        ]
    changed.set_nodes(before_readers(graph.node, restored))
    return changed


def _scale(weight: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return the scale of each output channel, in the axes of the weight."""
    others = tuple(other for other in range(weight.ndim) if other != axis)
    scale: NDArray[Any] = np.abs(weight).max(axis=others, keepdims=True) / np.float32(LARGEST)
    np.maximum(scale, np.float32(1e-30), out=scale)
    return scale


def _converted(source: Numbers, scale: NDArray[Any]) -> NDArray[Any]:
    scaled: NDArray[Any] = source() / scale
    return scaled.astype(helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN))


def _output_axis(node: onnx.NodeProto, rank: int) -> int:
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    if node.op_type == "ConvTranspose":
        return 1
    return rank - 1 if node.op_type in ("MatMul", "Gemm") and not transposed else 0
