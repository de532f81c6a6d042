"""Int8 static quantization by ONNX Runtime: QDQ form, weights per channel, activation ranges from calibration data."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from plimsoll_job.load.data import Samples
from plimsoll_job.techniques.quantize.float_model import FloatModel, quiet
from plimsoll_job.techniques.quantize.layers import CONVOLUTIONS, LINEAR, Layer

#: The ranges of a model's activations, as ONNX Runtime's calibration cache keeps them: JSON.
Ranges = bytes
#: The least and the largest value of each activation, by its name.
RangeTable = Mapping[str, tuple[float, float]]
SIDES = ("lowest", "highest")


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Feeds all calibration samples, in order."""

    def __init__(self, samples: Samples) -> None:
        self._batches = samples.batches()

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch, None after the last."""
        return next(self._batches, None)


def observe_ranges(model: FloatModel, calibration: Samples) -> Ranges:
    """Return the least and the largest value of each activation over all samples."""
    with tempfile.TemporaryDirectory() as directory:
        cache = Path(directory, "ranges.json")
        _quantize(model, model.layers, Path(directory), cache, _Batches(calibration))
        return cache.read_bytes()


def read_ranges(ranges: Ranges) -> RangeTable:
    """Return the ranges as numbers; ONNX Runtime keeps each end as a list of one."""
    table = json.loads(ranges)["data"]
    return {name: tuple(float(np.ravel(row[side]["data"])[0]) for side in SIDES) for name, row in table.items()}  # type: ignore[misc]


def to_int8_static(model: FloatModel, layers: Collection[Layer], ranges: Ranges | None) -> onnx.ModelProto:
    """Return the model with these layers in int8, and what lies between convolutions too.

    Activations are unsigned: with signed ones ONNX Runtime dequantizes weights anew in each run, slower than in float.
    Zero weights stay zero. Without convolutions only the layers are quantized, and answer in float: what lies between
    those of transformers has no int8 kernels worth the rounding.
    """
    assert ranges is not None  # noqa: S101 — the scheme observes them
    with tempfile.TemporaryDirectory() as directory:
        cache = Path(directory, "ranges.json")
        cache.write_bytes(ranges)
        return _quantize(model, layers, Path(directory), cache, None)


def _quantize(
    model: FloatModel, layers: Collection[Layer], directory: Path, cache: Path, batches: _Batches | None
) -> onnx.ModelProto:
    chosen = {layer.node for layer in layers}
    convolutional = any(layer.operator in CONVOLUTIONS for layer in model.layers)
    prepared, quantized = directory / "prepared.onnx", directory / "quantized.onnx"
    prepared.write_bytes(model.content)
    excluded = [layer.node for layer in model.layers if layer.node not in chosen]
    if not convolutional:
        weighted = {layer.node for layer in model.layers}
        excluded += [
            node.name for node in model.copy().graph.node if node.op_type in LINEAR and node.name not in weighted
        ]
    with quiet():
        quantize_static(
            str(prepared),
            str(quantized),
            batches,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=cache,
            op_types_to_quantize=None if convolutional else sorted({layer.operator for layer in model.layers}),
            nodes_to_exclude=excluded,
            extra_options={
                "ActivationSymmetric": False,
                "WeightSymmetric": True,
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": [] if convolutional else sorted(LINEAR),
            },
        )
    return onnx.load(str(quantized))
