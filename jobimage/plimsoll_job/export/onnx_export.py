"""Export of a torch module to an ONNX file with a dynamic batch, checked against the module."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from plimsoll_job.boundary import boundary
from plimsoll_job.errors import UserError
from plimsoll_job.export.fold import fold
from plimsoll_job.export.graph import rename, strip
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.export.norms import running_instance_norms
from plimsoll_job.export.pooling import any_pooling
from plimsoll_job.export.reload import difference, largest_of
from plimsoll_job.load.architectures.graph import GraphModule
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.sessions import open_frugally

FIELD = "spec.model.architecture"
NOT_EXPORTABLE = "the model cannot be exported to ONNX"
OUTPUT_NAME = "logits"
OPSET = 17
CHECKED_BATCHES = (1, 5)
#: Operators that answer otherwise each time.
RANDOM = {"RandomUniform", "RandomNormal", "RandomUniformLike", "RandomNormalLike", "Bernoulli", "Multinomial"}
#: Protobuf ends at 2 GiB; what is not weights, such as nodes and names, has the rest.
MAX_WEIGHTS_BYTES = (1 << 31) - (32 << 20)


def export_onnx(module: nn.Module, signature: Signature, path: Path) -> None:
    """Write the module as an ONNX model that takes any batch; the same module gives the same bytes.

    Text may be of any length where the module traces so, else of the signature's. UserError when torch cannot export
    the module, or when the export answers otherwise than it.
    """
    module = module.cpu().eval()
    fixed = tuple(replace(one, any_length=False) for one in signature)
    try:
        return _export_checked(module, signature, path)
    except UserError:
        if fixed == signature:
            raise
    return _export_checked(module, fixed, path)


def _export_checked(module: nn.Module, signature: Signature, path: Path) -> None:
    model = trace_onnx(module, signature)
    drawn = sorted({node.op_type for node in model.proto.graph.node} & RANDOM)
    if drawn:
        # What a gate measured would hold for its draw alone, and draws of a small share pass the check below.
        raise _not_exportable(f"its answers are drawn at random, by {', '.join(drawn)}")
    model.write(path)
    check_export(module, path, signature)


def trace_onnx(module: nn.Module, signature: Signature) -> LeanModel:
    """Return what is written, without comparing its answers; UserError when torch cannot export the module."""
    model = trace_named(module, signature)
    strip(model)
    return model


def trace_named(module: nn.Module, signature: Signature) -> LeanModel:
    """Return the module as an ONNX model whose nodes are named by its modules; not compared either."""
    if isinstance(module, GraphModule):
        return module.described(example_of(signature), any_length=signature[0].any_length)
    written, weights = io.BytesIO(), module.state_dict()
    # The exporter gives each name once, and would rename the weight that has that of an input or of the answers.
    aside = {name: _apart(name, weights) for name in (*(one.name for one in signature), OUTPUT_NAME)}
    inputs = [aside[one.name] for one in signature]
    with boundary(FIELD, NOT_EXPORTABLE, reason="NotExportable"), _quiet(), _symbolics():
        torch.onnx.export(
            module,
            example_of(signature),
            written,  # type: ignore[arg-type]  # the exporter takes buffers, its annotation says paths
            # docs/decisions/0020: twenty times faster than the dynamo exporter, and the batch stays free.
            dynamo=False,
            input_names=inputs,
            output_names=[aside[OUTPUT_NAME]],
            dynamic_axes={
                aside[OUTPUT_NAME]: output_axes(module, signature),
                **{
                    name: {0: "batch", **({1: "length"} if one.any_length else {})}
                    for name, one in zip(inputs, signature, strict=True)
                },
            },
            opset_version=OPSET,
            # docs/decisions/0036: the exporter would hold the weights three times more.
            export_params=False,
            do_constant_folding=False,
        )
    model = LeanModel(onnx.load_from_string(written.getvalue()))
    _attach(model, weights, inputs)
    _give_back_names(model, {other: name for name, other in aside.items() if other != name})
    fold(model)
    return model


@contextlib.contextmanager
def _symbolics() -> Iterator[None]:
    """Let the exporter take what its own rules do not, or write otherwise than it is."""
    with any_pooling(OPSET), running_instance_norms(OPSET):
        yield


def _attach(model: LeanModel, weights: Mapping[str, torch.Tensor], inputs: Collection[str]) -> None:
    """Make constants of the graph's inputs that are weights; they go by their names in the module."""
    graph = model.proto.graph
    given = [value for value in graph.input if value.name in inputs]
    for value in graph.input:
        if value.name in inputs:
            continue
        if value.name not in weights:
            raise _not_exportable(f"{value.name!r} is neither an input nor a weight of the module's state")
        weight = weights[value.name]
        model.add(value.name, value.type.tensor_type.elem_type, tuple(weight.shape), weight.numpy)
    del graph.input[:]
    graph.input.extend(given)


def _apart(name: str, taken: Collection[str]) -> str:
    """Return the name, with underscores behind it until no other has it."""
    while name in taken:
        name += "_"
    return name


def _give_back_names(model: LeanModel, names: Mapping[str, str]) -> None:
    """Call inputs and answers by the names they were to have, which weights have: those get the ones in their place."""
    graph = model.proto.graph
    swapped = {one: other for pair in names.items() for one, other in (pair, pair[::-1])}
    for constant in graph.initializer:
        if other := swapped.get(constant.name):
            if constant.name in model.numbers:
                model.numbers[other] = model.numbers.pop(constant.name)
            constant.name = other
    for value in (*graph.input, *graph.output):
        value.name = swapped.get(value.name, value.name)
    rename(graph, swapped)


def _not_exportable(why: str) -> UserError:
    return UserError(f"{FIELD}: {NOT_EXPORTABLE}: {why}", reason="NotExportable")


def output_axes(module: nn.Module, signature: Signature) -> dict[int, str]:
    """Return the axes of the output that are free: the batch, and the tokens where each has an answer."""
    if not any(one.any_length for one in signature):
        return {0: "batch"}
    with torch.no_grad():
        answers = module(*example_of(signature))
    return {0: "batch", **({1: "length"} if answers.ndim > 2 else {})}


def check_export(module: nn.Module, path: Path, signature: Signature) -> None:
    """UserError when the file answers otherwise than the module, at several batches and, of text, another length."""
    session = open_frugally(path)
    shorter = tuple(
        replace(one, shape=(max(2, one.shape[0] // 2), *one.shape[1:])) if one.any_length else one for one in signature
    )
    compared = [
        (given, batch, *_answers(module, session, given, batch))
        for given in dict.fromkeys((signature, shorter))
        for batch in CHECKED_BATCHES
    ]
    largest = largest_of(expected for _, _, expected, _ in compared)
    for given, batch, expected, got in compared:
        problem = "it cannot be run" if got is None else difference(expected, got, largest)
        if problem is not None:
            shapes = " and ".join(str(list(one.shape)) for one in given)
            raise UserError(
                f"spec.model.architecture: the ONNX export answers otherwise than the module at batch {batch} of "
                f"samples {shapes}: {problem}",
                reason="NotExportable",
            )


def _answers(
    module: nn.Module, session: Any, signature: Signature, batch: int
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the module's answers and the file's, none where ONNX Runtime cannot run it on such a batch."""
    inputs = example_of(signature, batch)
    with torch.no_grad():
        expected = module(*inputs).numpy()
    # What ONNX Runtime raises where a shape was baked in shares no public base class.
    try:
        (got,) = session.run(None, {one.name: array.numpy() for one, array in zip(signature, inputs, strict=True)})
    except Exception:
        return expected, None
    return expected, got


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the exporter's own lines: what matters is raised."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
