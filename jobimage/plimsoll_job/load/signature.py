"""The inputs of a model: what the module says of itself, or what the data shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from plimsoll_api.sources import Task
from plimsoll_api.tasks import CLASSIFICATION
from plimsoll_job.errors import UserError
from plimsoll_job.figures import example_of
from plimsoll_job.load.data import Samples, check_inputs
from plimsoll_job.load.inputs import Input, Signature, single
from plimsoll_job.load.text import ATTENTION_MASK, INPUT_IDS

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
    told = getattr(module, "input_shape", None)
    if told is None and not given:
        raise UserError(
            "spec.data.calibration: is needed to know the shape of the model's input, "
            "since the module has no attribute input_shape"
        )
    signature = single(tuple(map(int, told))) if told is not None else _shown_by(list(given.values()))
    for spec_field, samples in given.items():
        check_inputs(samples, {one.name: one.shape for one in signature}, spec_field)
    _check_vocabulary(module, signature, next(iter(given), ""))
    spec_field = "spec.model.architecture" if told is not None else next(iter(given))
    try:
        with torch.no_grad():
            output = module(*example_of(signature))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        shapes = " and ".join(str(list(one.shape)) for one in signature)
        raise UserError(f"{spec_field}: the model refuses samples of the shape {shapes}: {error}") from error
    check_output(output, task)
    return signature


def check_output(output: object, task: Task) -> None:
    """UserError when the module's answer to a batch is not of the shape that the task asks for."""
    expected = OUTPUTS[task]
    shape = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if not isinstance(output, torch.Tensor) or output.ndim != len(expected):
        raise UserError(
            f"spec.model.architecture: a model of the task {task} answers with one tensor of shape "
            f"[{', '.join(expected)}], this one answers with {shape}"
        )


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
            any_length=name in (INPUT_IDS, ATTENTION_MASK),
        )
        for name, array in given[0].inputs.items()
    )
