"""Columns of a parquet file as arrays: numbers, text, lists of one length, and fixed-shape tensors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_job.errors import UserError


def read_parquet(content: bytes, uri: str, spec_field: str, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return the wanted columns that the file has; UserError for other files and columns without array form."""
    # pyarrow costs a tenth of a second to import, and most jobs read npz.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        file = pq.ParquetFile(io.BytesIO(content))
        present = [name for name in dict.fromkeys(wanted) if name in file.schema_arrow.names]
        table = file.read(columns=present)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{spec_field}.uri: {uri} is not a whole .parquet file: {error}") from error
    return {name: _array_of(table[name].combine_chunks(), name, spec_field) for name in present}


def _array_of(column: Any, name: str, spec_field: str) -> NDArray[Any]:
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
    except ValueError as error:
        raise UserError(f"{spec_field}: the lists of the column {name!r} are not all of one length") from error
    if array.dtype == object:
        raise UserError(f"{spec_field}: the lists of the column {name!r} hold {column.type}, expected numbers")
    return array
