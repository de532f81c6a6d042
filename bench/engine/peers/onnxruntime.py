"""ONNX Runtime's quantization by itself, as its documentation shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.engine.case import Case


def static(case: Case, folder: Path) -> None:
    """Quantize weights per channel and activations by their ranges on the calibration data, in QDQ form."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static  # noqa: PLC0415

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            arrays, _ = case.arrays("calibration")
            count = len(next(iter(arrays.values())))
            self._batches = iter([{n: a[at : at + 64] for n, a in arrays.items()} for at in range(0, count, 64)])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    quantize_static(_prepared(case, folder), folder / "model.onnx", Batches(), per_channel=True)


def dynamic(case: Case, folder: Path) -> None:
    """Quantize weights; activations when they come."""
    from onnxruntime.quantization import quantize_dynamic  # noqa: PLC0415

    quantize_dynamic(_prepared(case, folder), folder / "model.onnx", per_channel=True)


def _prepared(case: Case, folder: Path) -> Path:
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    exported, prepared = folder / "exported.onnx", folder / "prepared.onnx"
    case.export(case.build(), exported)
    quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True)
    exported.unlink()
    return prepared


VARIANTS = {"quantize_static": static, "quantize_dynamic": dynamic}
