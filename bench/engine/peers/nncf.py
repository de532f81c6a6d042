"""NNCF by itself: its post-training quantization of the ONNX model, as its documentation shows it."""

from __future__ import annotations

from pathlib import Path

from bench.engine.case import Case

REQUIREMENTS = ("nncf>=3,<4",)


def quantize(case: Case, folder: Path) -> None:
    """Quantize weights and activations by its default preset."""
    import nncf  # noqa: PLC0415
    import onnx  # noqa: PLC0415

    arrays, _ = case.arrays("calibration")
    count = len(next(iter(arrays.values())))
    samples = [{name: array[at : at + 1] for name, array in arrays.items()} for at in range(count)]
    exported = folder / "exported.onnx"
    case.export(case.build(), exported)
    quantized = nncf.quantize(onnx.load(str(exported)), nncf.Dataset(samples), subset_size=count)
    onnx.save(quantized, str(folder / "model.onnx"))


VARIANTS = {"quantize": quantize}
