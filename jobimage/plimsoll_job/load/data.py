"""Data sets: arrays of a .npz file or columns of a .parquet file, checked before anything is computed from them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.model import digest_of
from plimsoll_api.spec import DataSource
from plimsoll_job.errors import UserError
from plimsoll_job.load.inputs import SINGLE_INPUT, Arrays
from plimsoll_job.load.parquet import read_parquet
from plimsoll_job.load.store import Store


@dataclass(frozen=True)
class Samples:
    """Samples of one data set: the inputs, int64 labels [n] where they were asked for, further columns."""

    inputs: Arrays
    labels: NDArray[np.int64] | None
    digest: str
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, which: Any) -> dict[str, NDArray[Any]]:
        """Return the inputs of some samples, given by a slice or by their numbers."""
        return {name: array[which] for name, array in self.inputs.items()}

    def draw(self, count: int, seed: int) -> Samples:
        """Return that many samples without replacement, in their order; the labels and columns are left behind."""
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        return replace(self, inputs=self.rows(chosen), labels=None, columns={})


def read_samples(
    source: DataSource, store: Store, spec_field: str, *, labels: bool, columns: Sequence[str] = ()
) -> Samples:
    """Read the data set; UserError that names the field when it cannot be used as the field says."""
    content = store.read(source.uri, f"{spec_field}.uri")
    wanted = [*source.inputs, *([source.labels] if labels else []), *columns]
    arrays = _parse(content, source.uri, spec_field, wanted)
    for name, used_as in _uses(source, labels, columns):
        if name not in arrays:
            raise UserError(f"{spec_field}.{used_as}: {source.uri} has no array or column {name!r}")
    inputs = _stack_inputs([arrays[name] for name in source.inputs], source.inputs, f"{spec_field}.inputs")
    for name, used_as in _uses(source, labels, columns):
        if len(arrays[name]) != len(inputs):
            raise UserError(
                f"{spec_field}.{used_as}: {name!r} has {len(arrays[name])} entries, the inputs have {len(inputs)}"
            )
    return Samples(
        inputs={SINGLE_INPUT: inputs},
        labels=_check_labels(arrays[source.labels], f"{spec_field}.labels") if labels else None,
        digest=digest_of(content),
        columns={name: arrays[name] for name in columns},
    )


def check_classes(labels: NDArray[np.int64], classes: int, spec_field: str) -> None:
    """UserError when a label lies beyond the model's classes."""
    if labels.max(initial=0) >= classes:
        raise UserError(
            f"{spec_field}: label {labels.max()} is beyond the model's {classes} classes (0 to {classes - 1})"
        )


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
        *((name, "inputs") for name in source.inputs),
        *([(source.labels, "labels")] if labels else []),
        *((name, "slices") for name in columns),
    ]


def _parse(content: bytes, uri: str, spec_field: str, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    if uri.endswith(".npz"):
        return _read_npz(content, uri, spec_field, wanted)
    if uri.endswith(".parquet"):
        return read_parquet(content, uri, spec_field, wanted)
    raise UserError(f"{spec_field}.uri: expected a .npz or a .parquet file, got {uri}")


def _read_npz(content: bytes, uri: str, spec_field: str, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in wanted if name in archive.files}
    except ValueError as error:
        hint = " (arrays of Python objects are never unpickled)" if "allow_pickle" in str(error) else ""
        raise UserError(f"{spec_field}.uri: {uri} cannot be read as .npz: {error}{hint}") from error
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, AttributeError, TypeError, zipfile.error) as error:
        raise UserError(f"{spec_field}.uri: {uri} is not a whole .npz file: {error}") from error
    for name, array in arrays.items():
        if array.ndim == 0:
            raise UserError(f"{spec_field}.uri: the array {name!r} of {uri} is a single number, expected one a sample")
    return arrays


def _stack_inputs(arrays: Sequence[NDArray[Any]], names: Sequence[str], spec_field: str) -> NDArray[np.float32]:
    for name, array in zip(names, arrays, strict=True):
        if not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_) or np.iscomplexobj(array):
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
    inputs = np.ascontiguousarray(inputs, dtype=np.float32)
    bad = ~np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1)
    if bad.any():
        raise UserError(
            f"{spec_field}: {int(bad.sum())} of {len(inputs)} samples hold NaN or infinite numbers, "
            f"the first is sample {int(bad.argmax())}"
        )
    return inputs


def _check_labels(labels: NDArray[Any], spec_field: str) -> NDArray[np.int64]:
    if labels.ndim != 1:
        raise UserError(f"{spec_field}: expected one integer a sample, got the shape {list(labels.shape)}")
    if not np.issubdtype(labels.dtype, np.integer):
        whole = np.issubdtype(labels.dtype, np.floating) and bool(np.isfinite(labels).all() and (labels % 1 == 0).all())
        hint = "; store them as integers" if whole else ""
        raise UserError(f"{spec_field}: expected integer class labels from 0, got {labels.dtype}{hint}")
    if labels.min(initial=0) < 0:
        raise UserError(f"{spec_field}: label {labels.min()} is negative; classes count from 0")
    return labels.astype(np.int64)
