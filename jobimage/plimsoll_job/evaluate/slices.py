"""The same figures for parts of the data: each value of a column is one slice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.report import SliceFigures
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.yardsticks import Answers, Yardstick

MAX_SLICES = 256
MAX_VALUE_LENGTH = 128


def measure_slices(
    yardstick: Yardstick,
    *,
    baseline: Answers,
    candidate: Answers,
    labels: Answers | None,
    columns: Mapping[str, NDArray[Any]],
    spec_field: str,
) -> list[SliceFigures]:
    """Return the figures of every value of every column; UserError when there are more than a report can hold."""
    parts = [(name, _values(column, name, spec_field)) for name, column in columns.items()]
    total = sum(len(np.unique(values)) for _, values in parts)
    if total > MAX_SLICES:
        raise UserError(f"{spec_field}: the columns have {total} values, a report holds at most {MAX_SLICES} slices")
    slices = []
    for name, values in parts:
        for value in np.unique(values):
            inside = values == value
            before, after = baseline[inside], candidate[inside]
            given = None if labels is None else labels[inside]
            slices.append(
                SliceFigures(
                    column=name,
                    value=str(value),
                    samples=int(inside.sum()),
                    baseline=yardstick.figures(before, before, given),
                    candidate=yardstick.figures(before, after, given),
                    flips=yardstick.compare(before, after, given).flips,
                )
            )
    return slices


def _values(column: NDArray[Any], name: str, spec_field: str) -> NDArray[np.str_]:
    if column.ndim != 1:
        raise UserError(
            f"{spec_field}: the column {name!r} has the shape {list(column.shape)}, expected one value a sample"
        )
    return np.array([str(value)[:MAX_VALUE_LENGTH] for value in column.tolist()])
