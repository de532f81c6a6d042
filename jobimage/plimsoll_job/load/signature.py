"""The inputs of a model: what the module says of itself, or what the data shows."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from plimsoll_api.sources import Task
from plimsoll_api.tasks import CLASSIFICATION
from plimsoll_job.boundary import boundary
from plimsoll_job.errors import UserError
from plimsoll_job.export.decisions import Decisions, Watch
from plimsoll_job.load.alone import check_alone
from plimsoll_job.load.architectures.graph import GraphModule
from plimsoll_job.load.data import Samples, check_inputs
from plimsoll_job.load.examples import example_of, with_larger_example, with_samples
from plimsoll_job.load.inputs import Input, Signature, single
from plimsoll_job.load.text import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS, TOKENS

FIELD = "spec.model.architecture"
#: The shape of what a model of each task answers with; a test compares it with the tasks of the API.
OUTPUTS: Mapping[Task, tuple[str, ...]] = {
    **dict.fromkeys(CLASSIFICATION, ("batch", "classes")),
    Task.TOKEN_CLASSIFICATION: ("batch", "length", "classes"),
    Task.REGRESSION: ("batch", "outputs"),
    Task.EMBEDDING: ("batch", "dimensions"),
}


def signature_of(module: nn.Module, data: Mapping[str, Samples | None], task: Task) -> Signature:
    """Return the inputs of the model; UserError when the data has others, or the module refuses them.

    `data` is keyed by the spec's fields. A module tells its shape by the attribute `input_shape`.
    """
    given = {spec_field: samples for spec_field, samples in data.items() if samples is not None}
    told = None if isinstance(module, GraphModule) and given else _told_by(module)
    if told is None and not given:
        why = (
            "the graph leaves it open" if isinstance(module, GraphModule) else "the module has no attribute input_shape"
        )
        raise UserError(f"spec.data.calibration: is needed to know the shape of the model's input, since {why}")
    signature = told or _shown_by(list(given.values()))
    for spec_field, samples in given.items():
        if isinstance(module, GraphModule):
            check_inputs(samples, module.shapes, spec_field)
        check_inputs(samples, {one.name: one.shape for one in signature}, spec_field)
    if isinstance(module, GraphModule):
        signature = tuple(
            replace(one, any_length=module.shapes[one.name][:1] == (None,) and one.name in TOKENS) for one in signature
        )
    _check_vocabulary(module, signature, next(iter(given), ""))
    check_arguments(module, signature, FIELD)
    spec_field = FIELD if told is not None else next(iter(given))
    signature = with_samples(signature, next(iter(given.values()), None))
    example, decisions = example_of(signature), Decisions()
    with boundary(spec_field, _refusal(signature)), torch.no_grad(), Watch(example, decisions.traced):
        output = module(*example)
    check_output(output, task)
    check_alone(module, signature, FIELD, decisions.read())
    if isinstance(module, GraphModule):
        largest = example_of(signature, module.most)
        module.check_batches(largest)
        module.check_as_given(largest)
        return signature
    # Two samples may not need a layer that others do, such as the experts of a mixture.
    return with_larger_example(signature) if decisions.traced else signature


def _refusal(signature: Signature) -> str:
    """Return in words that the model does not answer the example, with where its samples are from."""
    shapes = " and ".join(str(list(one.shape)) for one in signature)
    if all(one.samples is not None for one in signature):
        return f"the model refuses samples of the shape {shapes}"
    return (
        f"the model refuses random numbers of the shape {shapes}, which stand in for samples (name calibration or "
        "training data)"
    )


def input_names(module: nn.Module, data: Iterable[Samples | None]) -> tuple[str, ...]:
    """Return the names of the inputs that the module takes of this data; a module tells them by `input_names`.

    Types of tokens are left out where the data has one type only, but for a graph, which takes all of its inputs.
    """
    names: tuple[str, ...] = getattr(module, "input_names", (INPUT_IDS, ATTENTION_MASK))
    typed = any(
        samples.inputs[TOKEN_TYPE_IDS].any() for samples in data if samples and TOKEN_TYPE_IDS in samples.inputs
    )
    if typed or isinstance(module, GraphModule):
        return names
    return tuple(name for name in names if name != TOKEN_TYPE_IDS)


def check_arguments(module: nn.Module, signature: Signature, spec_field: str) -> None:
    """UserError when the module's forward cannot be called with the inputs by position."""
    try:
        takes = inspect.signature(module.forward)
    except ValueError:  # Compiled code tells none.
        return
    try:
        takes.bind(*signature)
    except TypeError as error:
        names = ", ".join(one.name for one in signature)
        raise UserError(
            f"{spec_field}: forward{takes} is called with {len(signature)} by position ({names}): {error}; have the "
            "factory return a module that takes these alone, and parts them or makes the others itself"
        ) from error


def check_output(output: object, task: Task) -> None:
    """UserError when the module's answer to a batch is not of the shape that the task asks for."""
    expected = OUTPUTS[task]
    if not isinstance(output, torch.Tensor) or output.ndim != len(expected):
        raise UserError(
            f"{FIELD}: a model of the task {task} answers with one tensor of shape [{', '.join(expected)}], this one "
            f"answers with {told_of(output)}"
        )
    if task in CLASSIFICATION and output.shape[-1] == 1:
        raise UserError(
            f"{FIELD}: the model has one output, and a classifier has one for each class; where its sign tells two "
            "classes, answer with torch.cat([-logit, logit], dim=1)"
        )


def told_of(output: object) -> str:
    """Return in words what a module answers a batch with: a tensor's shape, or the names of several and what to do."""
    if isinstance(output, torch.Tensor):
        return f"[{', '.join(['batch', *map(str, output.shape[1:])])}]"
    kind = type(output).__name__
    if isinstance(output, Mapping):
        kind += f" of {', '.join(map(str, output))}"
    elif isinstance(output, Sequence):
        kind += f" of {len(output)}"
    return f"{kind}; have the factory return a module whose forward answers with the tensor that is to be judged"


def _told_by(module: nn.Module) -> Signature | None:
    """Return the inputs as the module tells them by itself, None where it does not."""
    if isinstance(module, GraphModule):
        return module.told()
    shape = getattr(module, "input_shape", None)
    return None if shape is None else single(tuple(map(int, shape)))


def _check_vocabulary(module: nn.Module, signature: Signature, spec_field: str) -> None:
    """UserError when the data holds tokens that the model does not know; a module tells by `vocabulary`."""
    known = getattr(module, "vocabulary", None)
    used = next((one.values for one in signature if one.name == INPUT_IDS), 0)
    if known is not None and used > known:
        raise UserError(
            f"{spec_field}: token {used - 1} is beyond the model's vocabulary of {known}; "
            "the tokenizer beside the weights is another model's"
        )


def _shown_by(given: Sequence[Samples]) -> Signature:
    """Return the inputs of the first data set; integers may be as large as in any of them."""
    return tuple(
        Input(
            name,
            array.shape[1:],
            str(array.dtype),
            1 + max(int(samples.inputs[name].max()) for samples in given if name in samples.inputs)
            if array.dtype.kind == "i"
            else 1,
            any_length=name in TOKENS,
        )
        for name, array in given[0].inputs.items()
    )
