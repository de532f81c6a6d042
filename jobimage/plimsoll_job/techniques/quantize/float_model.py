"""The float model that a scheme starts from: its graph with names, simplified, and the layers in it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import onnx
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from plimsoll_job.export.graph import name_nodes
from plimsoll_job.export.lean import LeanModel, read_lean
from plimsoll_job.export.onnx_export import export_alike
from plimsoll_job.load.inputs import Signature
from plimsoll_job.scratch import Scratch
from plimsoll_job.sessions import write_optimized
from plimsoll_job.techniques.quantize.layers import Layer, find_layers, nodes_within
from plimsoll_job.techniques.quantize.regular import regularize
from plimsoll_job.techniques.shape import Candidate

FILE = "model.onnx"


@dataclass(frozen=True)
class FloatModel:
    """A float model, in a file, with its weights in another: tools that need no weights do not read them."""

    scratch: Scratch
    layers: tuple[Layer, ...]
    #: What a person should know of the export.
    notes: tuple[str, ...] = ()
    #: The names of the modules that it comes from.
    modules: frozenset[str] = frozenset()
    #: The nodes that compute in float whatever those around them do.
    kept: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, model: LeanModel, layers: tuple[Layer, ...], notes: tuple[str, ...] = (), modules: Collection[str] = ()
    ) -> Self:
        """Return the model of these layers, written."""
        scratch = Scratch()
        model.write_apart(scratch.path / FILE)
        return cls(scratch, layers, notes, frozenset(modules))

    def keeping(self, excluded: Collection[str]) -> Self:
        """Return the model whose nodes within the excluded modules all compute in float."""
        kept = nodes_within(self.lean().proto.graph, self.modules, excluded) if excluded else frozenset()
        return replace(self, kept=kept)

    def rewritten(self, changed: LeanModel) -> Self:
        """Return the model with the changed one's graph and weights, written; its layers are the same nodes."""
        scratch = Scratch()
        changed.write_apart(scratch.path / FILE)
        # A weight may have got a name of its own.
        return replace(self, scratch=scratch, layers=find_layers(changed.proto, self.modules))

    @property
    def path(self) -> Path:
        """Where the graph lies, which names the file of the weights."""
        return self.scratch.path / FILE

    def lean(self) -> LeanModel:
        """Return the model without its weights, to be changed."""
        return read_lean(self.path, self.scratch)


def float_model_of(candidate: Candidate, signature: Signature) -> FloatModel:
    """Return the candidate's graph with names, simplified and with its shapes inferred.

    What ONNX Runtime folds at a basic level is folded, and it skips layers whose shapes it does not know.
    """
    module = candidate.module.cpu().eval()
    scratch = Scratch()
    named, simple = scratch.path / "named.onnx", scratch.path / "simple.onnx"
    exported = export_alike(module, signature, lambda model: model.write_apart(named), named)
    with quiet():
        write_optimized(named, simple)
    model = read_lean(simple)
    model.proto = onnx.shape_inference.infer_shapes(model.proto)
    add_pre_process_metadata(model.proto)
    name_nodes(model.proto)
    regularize(model)
    modules = {name for name, _ in module.named_modules()}
    return FloatModel.of(model, find_layers(model.proto, modules), exported.notes, modules)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what ONNX Runtime logs on the root logger: what matters is checked on the graph."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
