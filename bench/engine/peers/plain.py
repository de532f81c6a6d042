"""The model as it was given, trained for the same epochs: what any fine-tuning costs, and what it gains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.engine.case import Case


def fine_tune(case: Case, folder: Path) -> None:
    """Train on."""
    case.export(case.fine_tune(case.build()), folder / "model.onnx")


VARIANTS = {"fine-tuned": fine_tune}
#: Vectors have no labels to train on.
EMBEDDING_VARIANTS: dict[str, Callable[[Case, Path], None]] = {}
