"""Columns of parquet, CSV and JSON-lines files as arrays: numbers, text, lists of one length, fixed-shape tensors."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_job.errors import UserError
from plimsoll_job.load.columns import Table, Wanted

#: Types are inferred from the first block, so all of a file is one, up to what Arrow takes.
MAX_BLOCK_BYTES = 2**31 - 1
MIN_BLOCK_BYTES = 2**16
#: What other programs write between the columns of a .csv file.
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_parquet(content: bytes, uri: str, spec_field: str, wanted: Wanted) -> Table:
    """Return the wanted columns that the file has; UserError for other files and columns without array form."""
    names: list[str] = []

    def parse() -> Any:
        import pyarrow.parquet as pq  # noqa: PLC0415

        file = pq.ParquetFile(io.BytesIO(content))
        names.extend(file.schema_arrow.names)
        return file.read(columns=[name for name in dict.fromkeys(wanted.names) if name in names])

    return columns_of(parse, (uri, spec_field, ".parquet"), wanted)._replace(names=names)


def read_csv(content: bytes, uri: str, spec_field: str, wanted: Wanted) -> Table:
    """Return the wanted columns of comma-separated values whose first line names them."""
    other = _other_separator(content)
    if other is not None:
        raise UserError(
            f"{spec_field}.uri: {uri} has {OTHER_SEPARATORS[other]} between its columns; write it with commas, and "
            "with points in numbers"
        )

    def parse() -> Any:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import csv  # noqa: PLC0415

        return csv.read_csv(
            io.BytesIO(content),
            read_options=csv.ReadOptions(use_threads=False, block_size=_block_size(content)),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(wanted.as_text, pa.string())),
        )

    return columns_of(parse, (uri, spec_field, ".csv"), wanted)


def _other_separator(content: bytes) -> str | None:
    """Return what stands between the columns when the first line has no comma, but another separator."""
    line = content.partition(b"\n")[0].decode(errors="ignore")
    return None if "," in line else next((one for one in OTHER_SEPARATORS if one in line), None)


def read_jsonl(content: bytes, uri: str, spec_field: str, wanted: Wanted) -> Table:
    """Return the wanted fields of a file that has one JSON object a line."""

    def parse() -> Any:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import json  # noqa: PLC0415

        def read(schema: Any = None) -> Any:
            return json.read_json(
                io.BytesIO(content),
                read_options=json.ReadOptions(use_threads=False, block_size=_block_size(content)),
                parse_options=json.ParseOptions(explicit_schema=schema),
            )

        table = read()
        # Arrow takes a string such as 2020-01-01 for a time; numbers and booleans have a text of their own.
        times = [one for one in table.schema if one.name in wanted.as_text and pa.types.is_temporal(one.type)]
        return read(pa.schema([(one.name, pa.string()) for one in times])) if times else table

    return columns_of(parse, (uri, spec_field, ".jsonl"), wanted)


def _block_size(content: bytes) -> int:
    return min(max(len(content) + 1, MIN_BLOCK_BYTES), MAX_BLOCK_BYTES)


def columns_of(
    parse: Callable[[], Any],
    what: tuple[str, str, str],
    wanted: Wanted,
    to_array: Callable[[Any, str], NDArray[Any]] | None = None,
) -> Table:
    """Return the wanted columns of the Arrow table that is parsed; `what` is its URI, its field and its format."""
    # pyarrow costs a tenth of a second to import, and most jobs read npz.
    import pyarrow as pa  # noqa: PLC0415

    uri, spec_field, form = what
    try:
        table = parse()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{spec_field}.uri: {uri} is not a whole {form} file: {error}") from error
    found = {}
    for name in dict.fromkeys(wanted.names):
        times = table.column_names.count(name)
        if times > 1:
            raise UserError(f"{spec_field}.uri: {uri} has {times} columns named {name!r}")
        if times:
            column = table[name].combine_chunks()
            found[name] = to_array(column, name) if to_array else array_of(column, name, spec_field)
    return Table(found, table.column_names)


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
