"""The shape of one sample: what the module says of itself, or what the data shows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from plimsoll_job.errors import UserError
from plimsoll_job.figures import example_of
from plimsoll_job.load.data import Samples, check_shape


def sample_shape_of(module: nn.Module, data: Mapping[str, Samples | None]) -> tuple[int, ...]:
    """Return the shape of one sample; UserError when the data is of another, or the module refuses it.

    `data` is keyed by the spec's fields. A module tells its shape by the attribute `input_shape`.
    """
    given = {spec_field: samples for spec_field, samples in data.items() if samples is not None}
    told = getattr(module, "input_shape", None)
    if told is None and not given:
        raise UserError(
            "spec.data.calibration: is needed to know the shape of the model's input, "
            "since the module has no attribute input_shape"
        )
    shape = tuple(int(size) for size in told) if told is not None else next(iter(given.values())).shape
    for spec_field, samples in given.items():
        check_shape(samples, shape, spec_field)
    spec_field = "spec.model.architecture.factory" if told is not None else next(iter(given))
    try:
        with torch.no_grad():
            output = module(example_of(shape))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"{spec_field}: the model refuses samples of the shape {list(shape)}: {error}") from error
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        raise UserError(
            "spec.model.architecture.factory: a classifier answers with one tensor of shape [batch, classes]"
        )
    return shape
