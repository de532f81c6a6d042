"""Recurrent layers in int8: LSTMs by ONNX Runtime's dynamic kernel, or the weights of any kind, computed in float.

Each row of a gate has a scale of its own. What is computed in int8 has weights of 7 bits unless all 8 are asked for: an
AVX2 processor then changed an LSTM's answers by 0.14 to 0.16 of their spread, where 7 bits cost 0.008 to 0.014.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from plimsoll_job.export.graph import before_readers
from plimsoll_job.export.lean import LeanModel, Numbers
from plimsoll_job.techniques.quantize.layers import Layer

#: The largest integer of weights that are stored.
STORED = 127
DOMAIN = "com.microsoft"
#: Where ONNX's operators take the weights of inputs and of the state before, and how many of their inputs the kernel
#: takes alike.
WEIGHTS, ALIKE = (1, 2), 8


def store_recurrent(model: LeanModel, layers: Collection[Layer], _: int = 8) -> None:
    """Store the weights of these layers in int8; a session restores them once, as it is loaded."""
    constants = {constant.name: constant for constant in model.proto.graph.initializer}
    restored = {}
    for name in dict.fromkeys(name for layer in layers for name in layer.weights):
        constant, source = constants[name], model.source(constants[name])
        scale = _scale(source(), STORED)
        model.replace(constant, f"{name}_stored", TensorProto.INT8, partial(_rounded, source, scale))
        model.add(f"{name}_scale", TensorProto.FLOAT, scale.shape, partial(np.asarray, scale))
        restored[name] = [
            helper.make_node("Cast", [f"{name}_stored"], [f"{name}_unscaled"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_unscaled", f"{name}_scale"], [name]),
        ]
    model.set_nodes(before_readers(model.proto.graph.node, restored))


def compute_recurrent(model: LeanModel, layers: Collection[Layer], weight_bits: int) -> None:
    """Have LSTMs compute by weights of so many bits, and by the range that inputs and state have at each step.

    The others are stored in int8.
    """
    chosen = {layer.node: layer for layer in layers}
    nodes = model.proto.graph.node
    computed = {node.name: node for node in nodes if node.name in chosen and _has_kernel(node)}
    constants = {constant.name: constant for constant in model.proto.graph.initializer}
    for name in dict.fromkeys(name for node in computed for name in chosen[node].weights):
        source, (directions, rows, columns) = model.source(constants[name]), constants[name].dims
        scale = _scale(source(), 2 ** (weight_bits - 1) - 1)
        numbers = partial(_turned, source, scale)
        model.add(f"{name}_quantized", TensorProto.INT8, (directions, columns, rows), numbers)
        model.add(f"{name}_scale", TensorProto.FLOAT, (directions, rows), partial(np.squeeze, scale, 2))
        model.add(f"{name}_zero_point", TensorProto.INT8, (directions, rows), partial(_zeros, directions, rows))
    model.set_nodes([_dynamic(node) if node.name in computed else node for node in nodes])
    if computed and DOMAIN not in {opset.domain for opset in model.proto.opset_import}:
        model.proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.drop_unread()
    store_recurrent(model, [layer for layer in layers if layer.node not in computed])


def _has_kernel(node: onnx.NodeProto) -> bool:
    return node.op_type == "LSTM" and not any(one.name == "layout" and one.i for one in node.attribute)


def _dynamic(node: onnx.NodeProto) -> onnx.NodeProto:
    inputs = [*node.input, *[""] * (ALIKE - len(node.input))]
    quantized = [f"{name}_quantized" if at in WEIGHTS else name for at, name in enumerate(inputs)]
    parameters = [f"{inputs[at]}_{kind}" for at in WEIGHTS for kind in ("scale", "zero_point")]
    changed = helper.make_node(
        "DynamicQuantizeLSTM", [*quantized, *parameters], node.output, name=node.name, domain=DOMAIN
    )
    changed.attribute.extend(one for one in node.attribute if one.name != "layout")
    return changed


def _scale(weight: NDArray[Any], reach: int) -> NDArray[Any]:
    """Return the scale of each row, [directions, rows, 1]."""
    scale: NDArray[Any] = np.abs(weight).max(axis=2, keepdims=True) / np.float32(reach)
    np.maximum(scale, np.float32(1e-30), out=scale)
    return scale


def _rounded(source: Numbers, scale: NDArray[Any]) -> NDArray[Any]:
    rounded: NDArray[Any] = np.rint(source() / scale).astype(np.int8)
    return rounded


def _turned(source: Numbers, scale: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(_rounded(source, scale).transpose(0, 2, 1))


def _zeros(*shape: int) -> NDArray[Any]:
    return np.zeros(shape, np.int8)
