"""Float16 and BFloat16: every weight in two bytes, cast to float32 once, when a session folds the constants.

Computing in half floats took 1.6 to 2.2 times as long on x86 processors, where ONNX Runtime has no kernels for them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.layers import Layer

#: Constants of fewer numbers gain less than their cast costs.
MIN_NUMBERS = 64


def to_float16(model: FloatModel, layers: Collection[Layer], _: bytes | None) -> onnx.ModelProto:
    """Return the model with weights in IEEE half floats; those beyond 65504 stay float."""
    return _store(model, layers, TensorProto.FLOAT16)


def to_bfloat16(model: FloatModel, layers: Collection[Layer], _: bytes | None) -> onnx.ModelProto:
    """Return the model with weights in bfloat16: the range of float32, 8 bits of precision."""
    return _store(model, layers, TensorProto.BFLOAT16)


def _store(model: FloatModel, layers: Collection[Layer], kind: int) -> onnx.ModelProto:
    changed = model.copy()
    graph = changed.graph
    kept = {layer.weight for layer in model.layers} - {layer.weight for layer in layers}
    casts = []
    for constant in graph.initializer:
        numbers = int(np.prod(constant.dims, dtype=np.int64))
        if constant.data_type != TensorProto.FLOAT or constant.name in kept or numbers < MIN_NUMBERS:
            continue
        stored = _converted(numpy_helper.to_array(constant), kind)
        if stored is None:
            continue
        name = constant.name
        constant.CopyFrom(helper.make_tensor(f"{name}_stored", kind, constant.dims, stored.tobytes(), raw=True))
        casts.append(helper.make_node("Cast", [f"{name}_stored"], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    return changed


def _converted(values: NDArray[np.float32], kind: int) -> NDArray[np.generic] | None:
    """Return the numbers in the format, rounded to the nearest; None when one of them would be infinite."""
    with np.errstate(over="ignore"):
        stored = values.astype(helper.tensor_dtype_to_np_dtype(kind))
    return stored if bool(np.isfinite(stored.astype(np.float32)).all()) else None
