"""The weights that a quantized graph stands for: what its integers and scales come to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from plimsoll_job.export.lean import LeanModel, Numbers
from plimsoll_job.techniques.quantize.int4 import BLOCK
from plimsoll_job.techniques.quantize.layers import CONVOLUTIONS, INT4_ZERO, LINEAR, Layer


def restored_weights(model: LeanModel, floats: onnx.GraphProto, layers: Collection[Layer]) -> dict[str, Numbers]:
    """Return the weights of convolutions and linear layers that are stored in integers, by their nodes.

    They lie as in the float graph that the model was made of; its nodes must still have the names that it was given.
    """
    graph = model.proto.graph
    turned = {node.name for node in floats.node if any(one.name == "transB" and one.i for one in node.attribute)}
    nodes = {node.name: node for node in graph.node}
    sources = {name: node for node in graph.node for name in node.output}
    constants = {constant.name: constant for constant in graph.initializer}

    def of(name: str) -> Numbers:
        return model.source(constants[name])

    found: dict[str, Numbers] = {}
    for layer in layers:
        node = nodes.get(layer.node)
        source = sources.get(node.input[1]) if node is not None and len(node.input) > 1 else None
        if layer.operator not in CONVOLUTIONS | LINEAR:
            continue
        if source is not None and source.op_type == "DequantizeLinear" and source.input[0] in constants:
            found[layer.node] = _dequantized(source, *map(of, source.input))
        elif (integer := nodes.get(f"{layer.node}_quant")) is not None:
            scale = f"{integer.input[1].removesuffix('_quantized')}_scale"
            lying = _scaled(of(integer.input[1]), of(scale), of(integer.input[3]))
            found[layer.node] = _turned(lying) if layer.node in turned else lying
        elif (packed := nodes.get(f"{layer.node}_Q4")) is not None:
            lying = _unpacked(packed, *map(of, packed.input[1:3]))
            found[layer.node] = lying if layer.node in turned else _turned(lying)
    return found


def _dequantized(node: onnx.NodeProto, integers: Numbers, scale: Numbers, zero: Numbers) -> Numbers:
    axis = next((one.i for one in node.attribute if one.name == "axis"), 1)

    def numbers() -> NDArray[Any]:
        stored, scales = integers(), scale()
        shape = [-1 if at == axis % stored.ndim else 1 for at in range(stored.ndim)] if scales.ndim else []
        return _minus(stored, zero().reshape(shape)) * scales.reshape(shape)

    return numbers


def _scaled(integers: Numbers, scale: Numbers, zero: Numbers) -> Numbers:
    return lambda: _minus(integers(), zero()) * scale()


def _turned(numbers: Numbers) -> Numbers:
    return lambda: numbers().T


def _minus(integers: NDArray[Any], zero: NDArray[Any]) -> NDArray[np.float32]:
    return (integers.astype(np.int32) - zero.astype(np.int32)).astype(np.float32)


def _unpacked(node: onnx.NodeProto, packed: Numbers, scale: Numbers) -> Numbers:
    """Return the weight [outputs, inputs] of two integers a byte, in blocks."""
    inputs = next(one.i for one in node.attribute if one.name == "K")

    def numbers() -> NDArray[Any]:
        pairs = packed()
        integers = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(len(pairs), -1, BLOCK)
        restored = _minus(integers, np.array(INT4_ZERO)) * scale().reshape(len(pairs), -1, 1)
        return restored.reshape(len(pairs), -1)[:, :inputs]

    return numbers
