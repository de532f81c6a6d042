"""Columns of parquet, CSV and JSON-lines files as arrays: numbers, text, lists of one length, fixed-shape tensors."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_job.errors import UserError

#: Types are inferred from the first block, so all of a file is one, up to what Arrow takes.
MAX_BLOCK_BYTES = 2**31 - 1
MIN_BLOCK_BYTES = 2**16


def read_parquet(content: bytes, uri: str, spec_field: str, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the wanted columns that the file has; UserError for other files and columns without array form."""

    def parse() -> Any:
        import pyarrow.parquet as pq  # noqa: PLC0415

        file = pq.ParquetFile(io.BytesIO(content))
        return file.read(columns=[name for name in dict.fromkeys(wanted) if name in file.schema_arrow.names])

    return columns_of(parse, (uri, spec_field, ".parquet"), wanted)


def read_csv(content: bytes, uri: str, spec_field: str, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the wanted columns of comma-separated values whose first line names them."""

    def parse() -> Any:
        from pyarrow import csv  # noqa: PLC0415

        return csv.read_csv(
            io.BytesIO(content),
            read_options=csv.ReadOptions(use_threads=False, block_size=_block_size(content)),
            parse_options=csv.ParseOptions(newlines_in_values=True),
        )

    return columns_of(parse, (uri, spec_field, ".csv"), wanted)


def read_jsonl(content: bytes, uri: str, spec_field: str, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the wanted fields of a file that has one JSON object a line."""

    def parse() -> Any:
        from pyarrow import json  # noqa: PLC0415

        return json.read_json(
            io.BytesIO(content),
            read_options=json.ReadOptions(use_threads=False, block_size=_block_size(content)),
        )

    return columns_of(parse, (uri, spec_field, ".jsonl"), wanted)


def _block_size(content: bytes) -> int:
    return min(max(len(content) + 1, MIN_BLOCK_BYTES), MAX_BLOCK_BYTES)


def columns_of(
    parse: Callable[[], Any],
    what: tuple[str, str, str],
    wanted: Sequence[str],
    to_array: Callable[[Any, str], NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Return the wanted columns of the Arrow table that is parsed; `what` is its URI, its field and its format."""
    # pyarrow costs a tenth of a second to import, and most jobs read npz.
    import pyarrow as pa  # noqa: PLC0415

    uri, spec_field, form = what
    try:
        table = parse()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{spec_field}.uri: {uri} is not a whole {form} file: {error}") from error
    found = {}
    for name in dict.fromkeys(wanted):
        times = table.column_names.count(name)
        if times > 1:
            raise UserError(f"{spec_field}.uri: {uri} has {times} columns named {name!r}")
        if times:
            column = table[name].combine_chunks()
            found[name] = to_array(column, name) if to_array else array_of(column, name, spec_field)
    return found


def array_of(column: Any, name: str, spec_field: str) -> NDArray[Any]:
    """Return an Arrow column as an array, one entry a sample; UserError where it has no array form."""
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
    if column.null_count:
        raise UserError(f"{spec_field}: the column {name!r} has {column.null_count} empty entries")
    if isinstance(column.type, pa.FixedShapeTensorType):
        return np.asarray(column.to_numpy_ndarray())
    if not pa.types.is_nested(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    try:
        array = np.array(column.to_pylist())
    except ValueError:
        # Of different lengths: words and their tags may be, inputs are refused later.
        array = np.empty(len(column), dtype=object)
        array[:] = column.to_pylist()
        return array
    if array.dtype == object:
        raise UserError(f"{spec_field}: the lists of the column {name!r} hold {column.type}, expected numbers")
    return array
