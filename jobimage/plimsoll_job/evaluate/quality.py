"""Quality of predictions: accuracy, macro F1, flips, each over all samples and by slice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.report import Flips, SliceFigures
from plimsoll_job.errors import UserError

Classes = NDArray[np.int64]

MAX_SLICES = 256
MAX_VALUE_LENGTH = 128


def accuracy(predicted: Classes, labels: Classes) -> float:
    """Return the share of right predictions."""
    return float((predicted == labels).mean())


def macro_f1(predicted: Classes, labels: Classes) -> float:
    """Return the mean F1 over the classes that occur in labels or predictions, as scikit-learn's does."""
    scores = []
    for one in np.union1d(labels, predicted):
        right = int(((predicted == one) & (labels == one)).sum())
        scores.append(2 * right / (int((predicted == one).sum()) + int((labels == one).sum())))
    return float(np.mean(scores))


def count_flips(baseline: Classes, candidate: Classes, labels: Classes) -> Flips:
    """Return how the candidate's predictions differ from the baseline's."""
    was_right, is_right = baseline == labels, candidate == labels
    return Flips(
        samples=len(labels),
        both_right=int((was_right & is_right).sum()),
        right_to_wrong=int((was_right & ~is_right).sum()),
        wrong_to_right=int((~was_right & is_right).sum()),
        both_wrong=int((~was_right & ~is_right).sum()),
        changed=int((baseline != candidate).sum()),
    )


def measure_slices(
    baseline: Classes, candidate: Classes, labels: Classes, columns: Mapping[str, NDArray[Any]], spec_field: str
) -> list[SliceFigures]:
    """Return the figures of every value of every column; UserError when there are more than a report can hold."""
    parts = [(name, _values(column, name, spec_field)) for name, column in columns.items()]
    total = sum(len(np.unique(values)) for _, values in parts)
    if total > MAX_SLICES:
        raise UserError(f"{spec_field}: the columns have {total} values, a report holds at most {MAX_SLICES} slices")
    return [
        _measure_slice(name, str(value), baseline[values == value], candidate[values == value], labels[values == value])
        for name, values in parts
        for value in np.unique(values)
    ]


def _values(column: NDArray[Any], name: str, spec_field: str) -> NDArray[np.str_]:
    if column.ndim != 1:
        raise UserError(
            f"{spec_field}: the column {name!r} has the shape {list(column.shape)}, expected one value a sample"
        )
    return np.array([str(value)[:MAX_VALUE_LENGTH] for value in column.tolist()])


def _measure_slice(column: str, value: str, baseline: Classes, candidate: Classes, labels: Classes) -> SliceFigures:
    return SliceFigures(
        column=column,
        value=value,
        flips=count_flips(baseline, candidate, labels),
        baseline_accuracy=accuracy(baseline, labels),
        candidate_accuracy=accuracy(candidate, labels),
        baseline_macro_f1=macro_f1(baseline, labels),
        candidate_macro_f1=macro_f1(candidate, labels),
    )
