"""Labels: classes by number or by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_job.errors import UserError


def class_numbers(labels: NDArray[Any], classes: Sequence[str], spec_field: str) -> NDArray[np.int64]:
    """Return class labels [n] as numbers from 0; names are those of `classes`. UserError for anything else."""
    field = f"{spec_field}.labels"
    if labels.ndim != 1:
        raise UserError(f"{field}: expected one label a sample, got the shape {list(labels.shape)}")
    if labels.dtype.kind in "UO":
        return _numbers_of(labels.tolist(), classes, spec_field)
    if not np.issubdtype(labels.dtype, np.integer):
        whole = np.issubdtype(labels.dtype, np.floating) and bool(np.isfinite(labels).all() and (labels % 1 == 0).all())
        hint = "; store them as integers" if whole else ""
        raise UserError(f"{field}: expected integer class labels from 0, got {labels.dtype}{hint}")
    if labels.min(initial=0) < 0:
        raise UserError(f"{field}: label {labels.min()} is negative; classes count from 0")
    if classes and labels.max(initial=0) >= len(classes):
        raise UserError(f"{field}: label {labels.max()} is beyond the {len(classes)} names of {spec_field}.classes")
    return labels.astype(np.int64)


def _numbers_of(names: Sequence[Any], classes: Sequence[str], spec_field: str) -> NDArray[np.int64]:
    if not classes:
        raise UserError(
            f"{spec_field}.classes: the labels are names such as {names[0]!r}; "
            "list the classes in the order of the model's outputs"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = sorted({str(name) for name in names if name not in numbers})
    if unknown:
        shown = ", ".join(map(repr, unknown[:5]))
        raise UserError(f"{spec_field}.classes: has no {shown}, which {spec_field}.labels has")
    return np.array([numbers[name] for name in names], dtype=np.int64)
