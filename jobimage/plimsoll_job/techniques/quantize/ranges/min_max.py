"""The least and the largest value of each activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import TensorProto

from plimsoll_job.load.data import Samples
from plimsoll_job.techniques.padding import Padding
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.padding import ends_of, limits
from plimsoll_job.techniques.quantize.ranges.watch import Watching, watch

#: The least and the largest value of each activation, by its name.
RangeTable = Mapping[str, tuple[float, float]]


def observe_ends(model: FloatModel, names: Sequence[str], padding: Padding, calibration: Samples) -> RangeTable:
    """Return the least and the largest value of each activation over all samples, padding left out.

    As ONNX Runtime's own calibration does, which holds the weights four times meanwhile, and all activations at once.
    """
    constants = limits() if padding.layouts else ()
    reduced = list(watch(model, names, padding, calibration, _ends, constants=constants))
    found = np.array(reduced, np.float32).reshape(-1, len(names), 2)
    low, high = found[:, :, 0].min(axis=0), found[:, :, 1].max(axis=0)
    return {name: (float(low[at]), float(high[at])) for at, name in enumerate(names)}


def _ends(name: str, which: str | None) -> Watching:
    low, high = f"{name}_lowest", f"{name}_highest"
    return Watching(ends_of(name, which, low, high), (low, high), TensorProto.FLOAT)
