"""The float model that a scheme starts from: its graph with names, simplified, and the layers in it."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnxruntime.quantization.shape_inference import quant_pre_process

from plimsoll_job.export.graph import name_nodes
from plimsoll_job.export.onnx_export import check_export, trace_named
from plimsoll_job.load.inputs import Signature
from plimsoll_job.techniques.quantize.layers import Layer, find_layers
from plimsoll_job.techniques.shape import Candidate


@dataclass(frozen=True)
class FloatModel:
    """A float model, as bytes since ONNX Runtime's tools change the model that they are given."""

    content: bytes
    layers: tuple[Layer, ...]

    def copy(self) -> onnx.ModelProto:
        """Return the model, to be changed."""
        return onnx.load_from_string(self.content)


def float_model_of(candidate: Candidate, signature: Signature) -> FloatModel:
    """Return the candidate's graph with names, simplified and with its shapes inferred.

    Batch norm folds into convolutions, and ONNX Runtime skips layers whose shapes it does not know.
    """
    module = candidate.module.cpu().eval()
    named = trace_named(module, signature).SerializeToString()
    check_export(module, named, signature)
    with tempfile.TemporaryDirectory() as directory, quiet():
        source, prepared = Path(directory, "named.onnx"), Path(directory, "prepared.onnx")
        # From memory its weights would be handed over apart, and those that are shapes could not be inferred from; and
        # it would be copied.
        source.write_bytes(named)
        del named
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(str(prepared))
    name_nodes(model)
    modules = {name for name, _ in module.named_modules()}
    return FloatModel(model.SerializeToString(), find_layers(model, modules))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what ONNX Runtime logs on the root logger: what matters is checked on the graph."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
