"""Export of a torch module to an ONNX file with a dynamic batch, checked against the module."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from plimsoll_job.boundary import boundary, check_passing, words_of
from plimsoll_job.errors import UserError
from plimsoll_job.export.alike import counting, difference, scale_of
from plimsoll_job.export.decisions import Decisions, Watch, keeping
from plimsoll_job.export.fold import fold
from plimsoll_job.export.graph import rename, strip
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.export.refused import FIELD, NOT_EXPORTABLE, not_exportable
from plimsoll_job.export.rules import all_rules
from plimsoll_job.load.architectures.graph import GraphModule
from plimsoll_job.load.examples import batches_of, example_of
from plimsoll_job.load.inputs import Arrays, Signature
from plimsoll_job.sessions import open_frugally

OUTPUT_NAME = "logits"
OPSET = 17
#: Operators that answer otherwise each time.
RANDOM = {"RandomUniform", "RandomNormal", "RandomUniformLike", "RandomNormalLike", "Bernoulli", "Multinomial"}
#: Protobuf ends at 2 GiB; what is not weights, such as nodes and names, has the rest.
MAX_WEIGHTS_BYTES = (1 << 31) - (32 << 20)


@dataclass(frozen=True)
class Exported:
    """What an export was found to be: which inputs it takes, the module's own answers, what a person should know."""

    signature: Signature
    answers: Sequence[NDArray[Any]]
    notes: tuple[str, ...]


def export_onnx(module: nn.Module, signature: Signature, path: Path) -> Exported:
    """Write the module as an ONNX model that takes any batch; the same module gives the same bytes.

    Text may be of any length where the module traces so, else of the signature's. UserError when torch cannot export
    the module, or when the export answers otherwise than it.
    """

    def write(model: LeanModel) -> None:
        strip(model)
        drawn = sorted({node.op_type for node in model.proto.graph.node} & RANDOM)
        if drawn:
            # What a gate measured would hold for its draw alone, and draws of a small share pass the comparison.
            raise not_exportable(f"its answers are drawn at random, by {', '.join(drawn)}")
        model.write(path)

    return export_alike(module, signature, write, path)


def export_alike(module: nn.Module, signature: Signature, write: Callable[[LeanModel], object], path: Path) -> Exported:
    """Have the module's graph written to the path, and return how it was found to answer as the module.

    UserError as from export_onnx.
    """
    module = module.cpu().eval()
    fixed = tuple(replace(one, any_length=False) for one in signature)
    try:
        return _export(module, signature, write, path)
    except UserError as error:
        if fixed == signature:
            raise
        why = error.message.removeprefix(f"{FIELD}: ")
    exported = _export(module, fixed, write, path)
    length = next(one.shape[0] for one in signature if one.any_length)
    return replace(exported, notes=(f"Texts must have {length} tokens: with others, {why}.", *exported.notes))


def _export(module: nn.Module, signature: Signature, write: Callable[[LeanModel], object], path: Path) -> Exported:
    decisions = Decisions()
    write(trace_named(module, signature, decisions))
    answers = compare_export(module, path, signature, decisions)
    return Exported(signature, answers, decisions.notes())


def trace_onnx(module: nn.Module, signature: Signature) -> LeanModel:
    """Return what is written, without comparing its answers; UserError when torch cannot export the module."""
    model = trace_named(module, signature)
    strip(model)
    return model


def trace_named(module: nn.Module, signature: Signature, decisions: Decisions | None = None) -> LeanModel:
    """Return the module as an ONNX model whose nodes are named by its modules; not compared either.

    What the module decided by the values of the example is added to the decisions.
    """
    example = example_of(signature)
    if isinstance(module, GraphModule):
        return module.described(example, any_length=signature[0].any_length)
    decisions = decisions or Decisions()
    written, weights = io.BytesIO(), module.state_dict()
    # The exporter gives each name once, and would rename the weight that has that of an input or of the answers.
    aside = {name: _apart(name, weights) for name in (*(one.name for one in signature), OUTPUT_NAME)}
    inputs = [aside[one.name] for one in signature]
    with boundary(FIELD, NOT_EXPORTABLE, reason="NotExportable"), _quiet(), all_rules(OPSET):
        with torch.no_grad(), Watch(example, decisions.traced):
            answers = module(*example)
        with keeping(decisions.kept), _of_inputs_only(module):
            torch.onnx.export(
                module,
                example,
                written,  # type: ignore[arg-type]  # the exporter takes buffers, its annotation says paths
                # docs/decisions/0020: twenty times faster than the dynamo exporter, and the batch stays free.
                dynamo=False,
                input_names=inputs,
                output_names=[aside[OUTPUT_NAME]],
                dynamic_axes={
                    aside[OUTPUT_NAME]: _output_axes(signature, answers),
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
    _tell_shape(model, answers.shape, _output_axes(signature, answers))
    fold(model)
    return model


@contextlib.contextmanager
def _of_inputs_only(module: nn.Module) -> Iterator[None]:
    """Hide further parameters of `forward`, for a while: the exporter makes inputs of their defaults."""
    if isinstance(module, torch.jit.ScriptModule):
        # It is exported by its own graph, and not traced.
        yield
        return
    forward, own = module.forward, "forward" in vars(module)

    def of_inputs(*inputs: torch.Tensor) -> Any:
        return forward(*inputs)

    module.forward = of_inputs
    try:
        yield
    finally:
        if own:
            module.forward = forward
        else:
            del module.forward


def _attach(model: LeanModel, weights: Mapping[str, torch.Tensor], inputs: Collection[str]) -> None:
    """Make constants of the graph's inputs that are weights; they go by their names in the module."""
    graph = model.proto.graph
    given = [value for value in graph.input if value.name in inputs]
    for value in graph.input:
        if value.name in inputs:
            continue
        if value.name not in weights:
            raise not_exportable(f"{value.name!r} is neither an input nor a weight of the module's state")
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


def _output_axes(signature: Signature, answers: torch.Tensor) -> dict[int, str]:
    """Return the axes of the output that are free: the batch, and the tokens where each has an answer."""
    each_token = answers.ndim > 2 and any(one.any_length for one in signature)
    return {0: "batch", **({1: "length"} if each_token else {})}


def _tell_shape(model: LeanModel, shape: Sequence[int], free: Collection[int]) -> None:
    """Write down the sizes of the answers, of which the exporter knows none behind a reshape."""
    (value,) = model.proto.graph.output
    for axis, (dimension, size) in enumerate(zip(value.type.tensor_type.shape.dim, shape, strict=True)):
        if axis not in free:
            dimension.dim_value = size


def compare_export(module: nn.Module, path: Path, signature: Signature, decisions: Decisions) -> list[NDArray[Any]]:
    """Return the module's answers to all batches; UserError when the file answers otherwise, with what may be why."""
    session = open_frugally(path)
    batches = batches_of(signature)
    answers, found = [], []
    for batch in batches:
        answers.append(_answer(module, batch, decisions))
        found.append(_found(session, batch))
    wanted = [counting(answer, batch) for answer, batch in zip(answers, batches, strict=True)]
    # What another branch would answer may be near to it beside a constant that both add.
    scale = scale_of(wanted, centred=decisions.otherwise())
    for batch, expected, got in zip(batches, wanted, found, strict=True):
        problem = got if isinstance(got, str) else difference(expected, counting(got, batch), scale)
        if problem is not None:
            shapes = " and ".join(str(list(array.shape[1:])) for array in batch.values())
            raise UserError(
                f"{FIELD}: the ONNX export answers otherwise than the module at batch {len(expected)} of samples "
                f"{shapes}: {problem}{decisions.cause()}",
                reason="NotExportable",
            )
    return answers


def _answer(module: nn.Module, batch: Arrays, decisions: Decisions) -> NDArray[Any]:
    inputs = [torch.from_numpy(array) for array in batch.values()]
    # A graph's answers are ONNX Runtime's, which takes the values of all inputs.
    watch = contextlib.nullcontext() if isinstance(module, GraphModule) else Watch(inputs, decisions.compared)
    with torch.no_grad(), boundary(FIELD, "the model refuses samples of the job", reason="NotExportable"), watch:
        output: torch.Tensor = module(*inputs)
    answers: NDArray[Any] = output.numpy()
    return answers


def _found(session: Any, batch: Arrays) -> NDArray[Any] | str:
    """Return the file's answers, or why there are none."""
    # What ONNX Runtime raises where a shape was baked in shares no public base class.
    try:
        (got,) = session.run(None, dict(batch))
    except Exception as error:
        check_passing(error)
        return f"it cannot be run ({words_of(error)})"
    answers: NDArray[Any] = got
    return answers


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the exporter's own lines: what matters is raised."""
    switch, was_on = torch._C._jit_set_onnx_log_enabled, torch._C._jit_is_onnx_log_enabled()
    # The exporter turns its log on whatever was asked, leaves it so, and prints the graph of what it cannot take.
    switch(False)
    torch._C._jit_set_onnx_log_enabled = lambda enabled: None
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._C._jit_set_onnx_log_enabled = switch
        switch(was_on)
