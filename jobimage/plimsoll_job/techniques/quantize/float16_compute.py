"""Computing in float16, from inputs to outputs that stay what they were."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from plimsoll_job.export.graph import sorted_nodes
from plimsoll_job.export.lean import LeanModel, Numbers
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.layers import RECURRENT, Layer

#: The largest finite number of float16.
LARGEST = 65504.0


def to_float16_compute(model: FloatModel, layers: Collection[Layer], _: bytes | None) -> LeanModel:
    """Return the model that computes in float16 and has its weights in it; layers beyond 65504 stay float.

    So do all nodes that are kept.
    """
    changed = model.lean()
    compute_in_float16(changed, model, layers)
    return changed


def compute_in_float16(model: LeanModel, floats: FloatModel, layers: Collection[Layer]) -> None:
    """Have the model compute in float16, but for the layers that are not among `layers` or whose weights do not fit.

    It is that of `floats`, what that keeps stays float too.
    """
    # It imports what exports language models: half a second, which no other scheme should pay.
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    graph = model.proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    # ONNX Runtime's processor has recurrent kernels for float32 alone.
    computed = [layer for layer in layers if layer.operator not in RECURRENT]
    taken = {layer.node for layer in computed if np.abs(model.array(constants[layer.weight])).max(initial=0) <= LARGEST}
    large = {name: (constants[name], tuple(constants[name].dims), numbers) for name, numbers in model.numbers.items()}
    for constant, _, _ in large.values():
        # A single zero stands for numbers that are not in memory: the tool converts what it finds.
        constant.raw_data = bytes(helper.tensor_dtype_to_np_dtype(constant.data_type).itemsize)
        constant.dims[:] = [1]
    convert_float_to_float16(
        model.proto,
        keep_io_types=True,
        disable_shape_infer=True,
        node_block_list=sorted(floats.kept | {layer.node for layer in floats.layers if layer.node not in taken}),
    )
    for name, (constant, shape, numbers) in large.items():
        kind = constant.data_type
        constant.dims[:] = shape
        model.replace(constant, name, kind, partial(_converted, numbers, kind))
    # The tool writes a cast once more where a node reads one value twice, as an LSTM its two states.
    made = {node.output[0]: node for node in graph.node}
    model.set_nodes([node for node in graph.node if made[node.output[0]] is node])
    model.set_nodes(sorted_nodes(graph))


def _converted(source: Numbers, kind: int) -> NDArray[Any]:
    """Return the numbers in the format; those beyond float16 as the largest of it, as the tool has them."""
    numbers = source()
    if kind == TensorProto.FLOAT16:
        numbers = np.clip(numbers, -LARGEST, LARGEST)
    return numbers.astype(helper.tensor_dtype_to_np_dtype(kind), copy=False)
