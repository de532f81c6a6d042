"""Labels as the task takes them: classes by number or by name, or numbers to come near to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.sources import Task
from plimsoll_api.tasks import CLASSIFICATION
from plimsoll_job.errors import UserError

#: NumPy's kinds of integers; spans of time are none.
INTEGERS = "iu"
#: The tag of a token that does not count.
IGNORED = -100


def class_numbers(labels: NDArray[Any], classes: Sequence[str], spec_field: str) -> NDArray[np.int64]:
    """Return class labels [n] as numbers from 0. UserError for anything else.

    Names are those of `classes`, matched as text, however they are stored. Whole numbers are the numbers themselves,
    unless a class is called by a number.
    """
    field = f"{spec_field}.labels"
    if labels.ndim != 1 or isinstance(labels[:1].tolist()[0] if len(labels) else 0, list):
        raise UserError(f"{field}: expected one label a sample, got the shape {list(labels.shape)}")
    by_number = not any(map(_is_number, classes))
    if labels.dtype.kind in "UO" and classes and by_number and all(map(_is_number, labels.tolist())):
        labels = labels.astype(np.int64)
    integers = labels.dtype.kind in INTEGERS
    if labels.dtype.kind in "UOb" or (integers and not by_number):
        return _numbers_of([as_text(one) for one in labels.tolist()], classes, spec_field)
    if not integers:
        whole = np.issubdtype(labels.dtype, np.floating) and bool(np.isfinite(labels).all() and (labels % 1 == 0).all())
        hint = "; store them as integers" if whole else ""
        raise UserError(f"{field}: expected integer class labels from 0, got {labels.dtype}{hint}")
    if labels.min(initial=0) < 0:
        raise UserError(f"{field}: label {labels.min()} is negative; classes count from 0")
    if classes and labels.max(initial=0) >= len(classes):
        raise UserError(f"{field}: label {labels.max()} is beyond the {len(classes)} names of {spec_field}.classes")
    return labels.astype(np.int64)


def as_text(label: Any) -> str:
    """Return a label as it is written: true and false as JSON has them."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def _is_number(label: Any) -> bool:
    """Tell whether a label is a whole number as programs write it: 007 is a name."""
    return isinstance(label, str) and label.isdecimal() and label == str(int(label))


def named(labels: NDArray[Any], names: Sequence[str], spec_field: str) -> NDArray[Any]:
    """Return labels that are numbers of a data set's own classes, or lists of such, as the names of these."""
    listed = [one if isinstance(one, list) else [one] for one in labels.tolist()]
    numbers = [one for part in listed for one in part if one != IGNORED]
    if not names or not all(type(one) is int for one in numbers):
        return labels
    if wrong := [one for one in numbers if not 0 <= one < len(names)]:
        why = "; -1 stands for samples that have none" if wrong[0] == -1 else ""
        raise UserError(f"{spec_field}.labels: label {wrong[0]} is none of the data set's {len(names)} classes{why}")
    texts = [[one if one == IGNORED else names[one] for one in part] for part in listed]
    found = np.empty(len(labels), dtype=object)
    found[:] = texts if any(isinstance(one, list) for one in labels.tolist()) else [part[0] for part in texts]
    return found


def _numbers_of(names: Sequence[str], classes: Sequence[str], spec_field: str) -> NDArray[np.int64]:
    if not classes:
        raise UserError(
            f"{spec_field}.classes: the labels are names such as {names[0]!r}; "
            "list the classes in the order of the model's outputs"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = sorted({name for name in names if name not in numbers})
    if unknown:
        shown = ", ".join(map(repr, unknown[:5]))
        raise UserError(f"{spec_field}.classes: has no {shown}, which {spec_field}.labels has")
    return np.array([numbers[name] for name in names], dtype=np.int64)


def tag_numbers(labels: NDArray[Any], classes: Sequence[str], spec_field: str) -> NDArray[Any]:
    """Return the tags of the words of each sample, a list each, as numbers from 0; -100 is passed over."""
    samples = labels.tolist()
    if not all(isinstance(sample, list) for sample in samples):
        raise UserError(f"{spec_field}.labels: expected a list of tags a sample, one for each word")
    flat = [tag for sample in samples for tag in sample]
    counted = np.array([tag != IGNORED for tag in flat], dtype=bool)
    numbers = np.full(len(flat), IGNORED, dtype=np.int64)
    if counted.any():
        tags = np.array([tag for tag in flat if tag != IGNORED])
        numbers[counted] = class_numbers(tags, classes, spec_field)
    ends = np.cumsum([len(sample) for sample in samples])
    lists = np.empty(len(samples), dtype=object)
    lists[:] = [part.tolist() for part in np.split(numbers, ends[:-1])]
    return lists


def tags_of_tokens(
    tags: NDArray[Any], words: NDArray[np.int64], counts: Sequence[int], spec_field: str
) -> NDArray[Any]:
    """Return labels [n, length]: of each word its first token has the tag, all others are passed over (-100).

    `words` has the word that a token begins, or -1; `counts` the words of each sample.
    """
    labels = np.full(words.shape, IGNORED, dtype=np.int64)
    for row, (given, count) in enumerate(zip(tags, counts, strict=True)):
        if len(given) != count:
            raise UserError(f"{spec_field}.labels: sample {row} has {len(given)} tags for {count} words")
        begins = words[row] >= 0
        labels[row, begins] = np.array(given, dtype=np.int64)[words[row, begins]]
    if (labels == IGNORED).all():
        raise UserError(f"{spec_field}.labels: not one word has a tag that counts")
    return labels


def targets(labels: NDArray[Any], classes: Sequence[str], spec_field: str) -> NDArray[np.float32]:
    """Return the numbers of a regression [n, outputs]; one a sample is one output. UserError for anything else."""
    field = f"{spec_field}.labels"
    if labels.dtype.kind not in f"{INTEGERS}f":
        raise UserError(f"{field}: expected numbers, got {labels.dtype}")
    if labels.ndim > 2 or labels.size == 0:
        raise UserError(f"{field}: expected one number or one list of numbers a sample, got {list(labels.shape)}")
    wrong = ~np.isfinite(labels.reshape(len(labels), -1)).all(axis=1)
    if wrong.any():
        raise UserError(f"{field}: {int(wrong.sum())} labels are NaN or infinite, the first is {int(wrong.argmax())}")
    return labels.reshape(len(labels), -1).astype(np.float32)


#: Column, names of the classes, field of the data set in the spec → labels.
ReadLabels = Callable[[NDArray[Any], Sequence[str], str], NDArray[Any]]

#: How labels are read, None where the task has none; a test compares them with the tasks of the API.
READ_LABELS: Mapping[Task, ReadLabels | None] = {
    **dict.fromkeys(CLASSIFICATION, class_numbers),
    Task.TOKEN_CLASSIFICATION: tag_numbers,
    Task.REGRESSION: targets,
    Task.EMBEDDING: None,
}
