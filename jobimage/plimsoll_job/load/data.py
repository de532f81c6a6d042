"""Data sets as samples: inputs, labels and further columns, checked before anything is computed from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.artifact import TOKENIZER_FILE
from plimsoll_api.spec import DataSource
from plimsoll_job.boundary import boundary
from plimsoll_job.errors import UserError
from plimsoll_job.load.columns import Columns, Wanted
from plimsoll_job.load.formats import read_columns
from plimsoll_job.load.inputs import SINGLE_INPUT, Arrays
from plimsoll_job.load.labels import ReadLabels, named, tag_numbers, tags_of_tokens
from plimsoll_job.load.sentences import Sentences
from plimsoll_job.load.store import Store
from plimsoll_job.load.text import ATTENTION_MASK, Words, texts_of, tokenize, tokenize_words, words_of

MAX_BATCH = 256
#: A batch is as small as keeps its inputs below this: layers of image models answer ten to twenty times their input.
MAX_BATCH_BYTES = 8 << 20
#: What a token counts: the numbers that hidden layers make of it.
TOKEN_BYTES = 4 << 10
#: NumPy's kinds of real numbers; complex ones and spans of time are no inputs.
REAL = "biuf"
#: So many of a data set's columns are named where one of them is missing.
MAX_SHOWN = 20


@dataclass(frozen=True)
class Samples:
    """Samples of one data set: the inputs, the labels where they were asked for, further columns.

    `classes` are the names that labels are numbered by, whether they were read or not; none where they are numbers.
    `mask` [n, tokens] tells tokens from padding, whether the model takes it among its inputs or not; None where every
    position is data.
    """

    inputs: Arrays
    labels: NDArray[Any] | None
    digest: str
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    classes: Sequence[str] = ()
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        given = self.inputs.get(ATTENTION_MASK) if self.mask is None else None
        if given is not None and not given.all():
            # Inputs that the model does not take are left behind later, and what is padding is not.
            object.__setattr__(self, "mask", given != 0)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, which: Any) -> dict[str, NDArray[Any]]:
        """Return the inputs of some samples, given by a slice or by their numbers."""
        return {name: array[which] for name, array in self.inputs.items()}

    def take(self, which: Any) -> Samples:
        """Return some samples, given by a slice or by their numbers; the labels and columns are left behind."""
        mask = None if self.mask is None else self.mask[which]
        return replace(self, inputs=self.rows(which), labels=None, columns={}, mask=mask)

    @property
    def batch_size(self) -> int:
        """How many samples a model is asked at a time, so that what its layers make of them fits a pod."""
        return max(1, min(MAX_BATCH, MAX_BATCH_BYTES // max(1, self._sample_bytes())))

    def parts(self) -> Iterator[Samples]:
        """Yield all samples in order, so many at a time."""
        for start in range(0, len(self), self.batch_size):
            yield self.take(slice(start, start + self.batch_size))

    def batches(self) -> Iterator[Arrays]:
        """Yield the inputs of all samples in order, so many at a time."""
        return (part.inputs for part in self.parts())

    def draw(self, count: int, seed: int) -> Samples:
        """Return that many samples without replacement, in their order; the labels and columns are left behind."""
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:count]))

    def _sample_bytes(self) -> int:
        firsts = [array[:1] for array in self.inputs.values()]
        return sum(one.nbytes if one.dtype.kind == "f" else one.size * TOKEN_BYTES for one in firsts)


def read_samples(
    source: DataSource,
    store: Store,
    spec_field: str,
    read_labels: ReadLabels | None,
    *,
    columns: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
) -> Samples:
    """Read the data set; UserError that names the field when it cannot be used as the field says.

    Labels are read where it is said how. Text is cut into tokens as the files say that lie beside the model that
    takes it.
    """
    uses = _uses(source, read_labels is not None, columns)
    wanted = Wanted([name for name, _ in uses], _texts_among(source, uses))
    with boundary(f"{spec_field}.uri", f"{source.uri} cannot be read", reason="DataUnreadable"):
        read = read_columns(source, store, spec_field, wanted)
    for name, used_as in uses:
        if name not in read.arrays:
            shown = ", ".join(read.found[:MAX_SHOWN]) + (", …" if len(read.found) > MAX_SHOWN else "")
            raise UserError(
                f"{spec_field}.{used_as}: {source.uri} has no array or column {name!r}; it has {shown or 'none'}"
            )
    with boundary(f"{spec_field}.uri", f"{source.uri} cannot be made into inputs", reason="DataUnreadable"):
        inputs, words = _inputs_of(read, source, spec_field, files or {})
    count = len(next(iter(inputs.values())))
    for name, used_as in uses:
        if len(read.arrays[name]) != count:
            raise UserError(
                f"{spec_field}.{used_as}: {name!r} has {len(read.arrays[name])} entries, the inputs have {count}"
            )
    labels, classes = None, source.classes or read.classes
    if read_labels is not None:
        labels = read_labels(named(read.arrays[source.labels], read.classes, spec_field), classes, spec_field)
    if labels is not None and read_labels is tag_numbers:
        if words is None:
            raise UserError(f"{spec_field}.text: expected a list of words a sample, each with its tag")
        labels = tags_of_tokens(labels.tolist(), words.begun, words.counts, spec_field)
    return Samples(
        inputs=inputs,
        labels=labels,
        digest=read.digest,
        columns={name: read.arrays[name] for name in columns},
        classes=classes,
    )


def check_classes(labels: NDArray[np.int64], classes: int, spec_field: str) -> None:
    """UserError when a label lies beyond the model's classes."""
    if labels.max(initial=0) >= classes:
        raise UserError(
            f"{spec_field}: label {labels.max()} is beyond the model's {classes} classes (0 to {classes - 1})"
        )


def taken_by(samples: Samples, names: Sequence[str]) -> Samples:
    """Return the samples with the inputs that a model of these input names takes, in that order.

    The only array of numbers gets the name of the only input; what is lacking is left to check_inputs.
    """
    if list(samples.inputs) == [SINGLE_INPUT] and len(names) == 1:
        return replace(samples, inputs={names[0]: samples.inputs[SINGLE_INPUT]})
    chosen = {name: samples.inputs[name] for name in names if name in samples.inputs}
    return replace(samples, inputs=chosen) if chosen else samples


def check_inputs(samples: Samples, expected: Mapping[str, Sequence[int | None]], spec_field: str) -> None:
    """UserError when the inputs of one sample are not of the names and shapes that the model takes."""
    if list(samples.inputs) != list(expected):
        raise UserError(
            f"{spec_field}: the data gives {', '.join(samples.inputs)}, the model takes {', '.join(expected)}"
        )
    for name, shape in expected.items():
        given = samples.inputs[name].shape[1:]
        if len(given) != len(shape) or any(
            wanted is not None and wanted != size for wanted, size in zip(shape, given, strict=True)
        ):
            raise UserError(f"{spec_field}: one sample has the shape {list(given)}, the model takes {list(shape)}")


def _uses(source: DataSource, labels: bool, columns: Sequence[str]) -> list[tuple[str, str]]:
    return [
        *((name, "inputs") for name in source.inputs if source.text is None),
        *((name, "text") for name in source.text or []),
        *([(source.labels, "labels")] if labels else []),
        *((name, "slices") for name in columns),
    ]


def _texts_among(source: DataSource, uses: Sequence[tuple[str, str]]) -> frozenset[str]:
    """Return the columns whose entries are words or names: by their looks alone, 007 and true would be none."""
    numbers = {name for name, used_as in uses if used_as == "inputs" or (used_as == "labels" and not source.classes)}
    return frozenset(name for name, _ in uses if name not in numbers)


def _inputs_of(
    read: Columns, source: DataSource, spec_field: str, files: Mapping[str, bytes]
) -> tuple[Arrays, Words | None]:
    if source.text is None:
        arrays = [read.arrays[name] for name in source.inputs]
        return {SINGLE_INPUT: _stack_inputs(arrays, source.inputs, f"{spec_field}.inputs")}, None
    if TOKENIZER_FILE not in files:
        raise UserError(f"{spec_field}.text: the model has no tokenizer.json beside its weights")
    tokenizer, sentences = files[TOKENIZER_FILE], Sentences.of(files)
    length = sentences.length(source.tokens)
    columns, field_ = [read.arrays[name] for name in source.text], f"{spec_field}.text"
    if len(columns) == 1 and isinstance(next(iter(columns[0].tolist()), None), list):
        words = sentences.prepared(words_of(columns[0], source.text[0], field_))
        return tokenize_words(words, tokenizer, length, field_)
    return tokenize(sentences.prepared(texts_of(columns, source.text, field_)), tokenizer, length, field_), None


def _stack_inputs(arrays: Sequence[NDArray[Any]], names: Sequence[str], spec_field: str) -> NDArray[np.float32]:
    for name, array in zip(names, arrays, strict=True):
        if array.dtype == object and isinstance(next(iter(array), None), list):
            raise UserError(f"{spec_field}: the lists of the column {name!r} are not all of one length")
        if array.dtype.kind not in REAL:
            raise UserError(f"{spec_field}: {name!r} holds {array.dtype}, expected numbers")
        if len(names) > 1 and (array.ndim != 1 or len(array) != len(arrays[0])):
            raise UserError(
                f"{spec_field}: of several inputs each is one number a sample, all of one length; "
                f"{name!r} is {list(array.shape)}"
            )
    inputs = np.stack(arrays, axis=1) if len(arrays) > 1 else arrays[0]
    if inputs.ndim == 1:
        inputs = inputs[:, None]
    if len(inputs) == 0:
        raise UserError(f"{spec_field}: the data set is empty")
    with np.errstate(over="ignore"):
        inputs = np.ascontiguousarray(inputs, dtype=np.float32)
    bad = ~np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1)
    if bad.any():
        raise UserError(
            f"{spec_field}: {int(bad.sum())} of {len(inputs)} samples hold NaN or infinite numbers, "
            f"the first is sample {int(bad.argmax())}; what float32 cannot hold is infinite"
        )
    return inputs
