"""Float16 and BFloat16: every weight in two bytes, cast to float32 once, when a session folds the constants.

Computing in half floats took 1.6 to 2.2 times as long on x86 processors, where ONNX Runtime has no kernels for them.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from plimsoll_job.export.graph import before_readers
from plimsoll_job.export.lean import LeanModel, Numbers
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.layers import Layer

#: Constants of fewer numbers gain less than their cast costs.
MIN_NUMBERS = 64


def to_float16(model: FloatModel, layers: Collection[Layer], _: bytes | None) -> LeanModel:
    """Return the model with weights in IEEE half floats; those beyond 65504 stay float."""
    return _store(model, layers, TensorProto.FLOAT16)


def to_bfloat16(model: FloatModel, layers: Collection[Layer], _: bytes | None) -> LeanModel:
    """Return the model with weights in bfloat16: the range of float32, 8 bits of precision."""
    return _store(model, layers, TensorProto.BFLOAT16)


def _store(model: FloatModel, layers: Collection[Layer], kind: int) -> LeanModel:
    changed = model.lean()
    kept = {weight for layer in model.layers for weight in layer.weights}
    kept -= {weight for layer in layers for weight in layer.weights}
    casts = {}
    for constant in changed.proto.graph.initializer:
        name = constant.name
        if constant.data_type != TensorProto.FLOAT or name in kept or math.prod(constant.dims) < MIN_NUMBERS:
            continue
        numbers = partial(_converted, changed.source(constant), kind)
        if not np.isfinite(numbers().astype(np.float32)).all():
            continue
        changed.replace(constant, f"{name}_stored", kind, numbers)
        casts[name] = [helper.make_node("Cast", [f"{name}_stored"], [name], to=TensorProto.FLOAT)]
    changed.set_nodes(before_readers(changed.proto.graph.node, casts))
    return changed


def _converted(source: Numbers, kind: int) -> NDArray[np.generic]:
    """Return the numbers in the format, rounded to the nearest; infinite where they are beyond it."""
    with np.errstate(over="ignore"):
        return source().astype(helper.tensor_dtype_to_np_dtype(kind))
