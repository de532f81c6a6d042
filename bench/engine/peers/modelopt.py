"""NVIDIA's ModelOpt by itself: its post-training quantization of the torch model, exported to ONNX."""

from __future__ import annotations

from pathlib import Path

from bench.engine.case import Case

REQUIREMENTS = ("nvidia-modelopt>=0.40,<1",)


def quantize(case: Case, folder: Path) -> None:
    """Quantize weights per channel and activations per tensor, by its default config of int8."""
    import modelopt.torch.quantization as mtq  # noqa: PLC0415
    import torch  # noqa: PLC0415

    def calibrate(module: torch.nn.Module) -> None:
        with torch.no_grad():
            for batch in case.calibration_batches():
                module(*batch)

    case.export(mtq.quantize(case.build(), mtq.INT8_DEFAULT_CFG, calibrate), folder / "model.onnx")


VARIANTS = {"INT8_DEFAULT_CFG": quantize}
