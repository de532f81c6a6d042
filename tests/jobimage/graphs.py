"""ONNX files as people have them: exported by torch, of images, of numbers and of text."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from plimsoll_api.spec import ModelSource
from plimsoll_job.load.model import SourceModel, load_model
from plimsoll_job.load.store import Store


def exported(module: nn.Module, *example: torch.Tensor, free: bool = True, **options: Any) -> onnx.ModelProto:
    """Return the module as torch exports it; `free` with a dynamic batch."""
    names = options.setdefault("input_names", ["pixels"])
    options.setdefault("output_names", ["scores"])
    axes = {name: {0: "batch"} for name in (*names, *options["output_names"])}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), example, buffer,  # type: ignore[arg-type]
            **{"dynamo": False, "dynamic_axes": axes if free else None, "opset_version": 17} | options,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def save(root: Path, model: onnx.ModelProto, name: str = "given/model.onnx") -> Path:
    """Write the model into the claim `models`, with nothing in other files."""
    target = root / "models" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(model.SerializeToString())
    return target


def load(root: Path, uri: str = "pvc://models/given", **changes: Any) -> SourceModel:
    """Read the model as a job does."""
    value: dict[str, Any] = {"uri": uri, "architecture": {"onnx": {}}}
    return load_model(ModelSource.model_validate(value | changes), Store(claims=root))
