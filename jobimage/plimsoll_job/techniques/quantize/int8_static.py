"""Int8 static quantization by ONNX Runtime: QDQ form, weights per channel, activation ranges from calibration data."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import slim
from plimsoll_job.export.onnx_export import export_onnx
from plimsoll_job.load.data import Samples
from plimsoll_job.techniques.shape import Applied, Bench, Candidate

BATCH_SIZE = 64
WEIGHTED_OPERATORS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Feeds all calibration samples, in order."""

    def __init__(self, samples: Samples) -> None:
        self._batches = (samples.rows(slice(at, at + BATCH_SIZE)) for at in range(0, len(samples), BATCH_SIZE))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch, None after the last."""
        return next(self._batches, None)


def quantize_int8_static(candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate as an int8 graph; UserError when a layer stayed float or the model did not get smaller."""
    calibration = bench.need_calibration()
    float_graph = export_onnx(candidate.module, bench.signature)
    bench.reporter.report("quantize", 0.2, f"ranges from {len(calibration)} samples")
    model = slim(_quantize(float_graph, calibration))
    kept_float = float_weights(model)
    if kept_float:
        raise UserError(
            f"{bench.spec_field}: {len(kept_float)} layers kept float weights: {', '.join(kept_float[:5])}",
            reason="NotQuantizable",
        )
    graph = model.SerializeToString(deterministic=True)
    if len(graph) >= len(float_graph):
        raise UserError(
            f"{bench.spec_field}: the int8 model has {len(graph)} bytes, the float one {len(float_graph)}: "
            "the model is too small for quantization to pay; leave the step out",
            reason="NotSmaller",
        )
    bench.reporter.report("quantize", 1, f"{len(float_graph)} bytes became {len(graph)}")
    return Applied(
        candidate=replace(candidate, graph=graph, zero_weights=count_zero_weights(model)),
        details={
            "calibrationSamples": len(calibration),
            "floatBytes": len(float_graph),
            "int8Bytes": len(graph),
            "weightTypes": dict(sorted(Counter(weight_types(model).values()).items())),
        },
    )


def count_zero_weights(model: onnx.ModelProto) -> int:
    """Return how many int8 weights are zero; vectors of int8 are zero points, not weights."""
    arrays = [numpy_helper.to_array(constant) for constant in model.graph.initializer]
    return sum(int((array == 0).sum()) for array in arrays if array.dtype == np.int8 and array.ndim > 1)


def weight_types(model: onnx.ModelProto) -> dict[str, str]:
    """Return the element type that each weighted layer stores its constant weights in, by the layer's output."""
    constants = {constant.name: constant for constant in model.graph.initializer}
    restored = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    types = {}
    for node in model.graph.node:
        if node.op_type not in WEIGHTED_OPERATORS:
            continue
        stored = next(
            (constants[restored.get(name, name)] for name in node.input[:2] if restored.get(name, name) in constants),
            None,
        )
        if stored is not None:
            types[node.output[0]] = str(numpy_helper.to_array(stored).dtype)
    return types


def float_weights(model: onnx.ModelProto) -> list[str]:
    """Return the outputs of the layers whose weights are not int8."""
    return [layer for layer, kind in weight_types(model).items() if kind != "int8"]


def _quantize(graph: bytes, calibration: Samples) -> onnx.ModelProto:
    """Return the quantized model.

    The graph is first simplified and its shapes inferred: batch norm folds into convolutions, and ONNX Runtime skips
    layers whose shapes it does not know. S8S8 in QDQ form is its default for x86 processors; zero weights stay zero.
    """
    with tempfile.TemporaryDirectory() as directory, _quiet():
        prepared, quantized = Path(directory, "prepared.onnx"), Path(directory, "quantized.onnx")
        quant_pre_process(onnx.load_from_string(graph), str(prepared), skip_symbolic_shape=True)
        options: dict[str, Any] = {"ActivationSymmetric": False, "WeightSymmetric": True}
        quantize_static(
            str(prepared),
            str(quantized),
            _Batches(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=options,
        )
        return onnx.load(str(quantized))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what ONNX Runtime logs on the root logger: what matters is checked on the graph."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
