"""Where a data set's columns come from: the ending of a file tells its format, the files of a directory what it is."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.data import FILE_ENDINGS, DataSource
from plimsoll_api.images import Images
from plimsoll_api.model import digest_of
from plimsoll_job.errors import UserError
from plimsoll_job.load.columns import Columns, Table, Wanted
from plimsoll_job.load.huggingface import is_dataset, read_dataset
from plimsoll_job.load.images import read_image_folder
from plimsoll_job.load.store import Store
from plimsoll_job.load.tables import read_csv, read_jsonl, read_parquet

#: With which every zip archive begins, also an empty one.
ZIP_START = b"PK"
#: Content, URI, field of the spec, wanted columns → those that the file has.
Reader = Callable[[bytes, str, str, Wanted], Table]


def read_columns(source: DataSource, store: Store, spec_field: str, wanted: Wanted) -> Columns:
    """Return the wanted columns that the data set has; UserError when it cannot be read as what it says it is."""
    ending = source.uri.rsplit("/", 1)[-1].rpartition(".")[2]
    if ending in READERS:
        content = store.read(source.uri, f"{spec_field}.uri")
        table = READERS[ending](content, source.uri, spec_field, wanted)
        return Columns(table.arrays, digest_of(content), found=table.names)
    directory = store.locate(source.uri, f"{spec_field}.uri")
    if is_dataset(directory):
        return read_dataset(source, store, spec_field, wanted)
    if directory.is_dir():
        return read_image_folder(source.uri, source.images or Images(), store, spec_field, wanted.names)
    expected = ", ".join(f".{ending}" for ending in FILE_ENDINGS)
    raise UserError(
        f"{spec_field}.uri: expected a file that ends in {expected}, or a directory that is there; got {source.uri}"
    )


def read_npz(content: bytes, uri: str, spec_field: str, wanted: Wanted) -> Table:
    """Return the wanted arrays of a .npz file; objects are never unpickled."""
    if not content.startswith(ZIP_START):
        # NumPy takes anything else for a pickle, and says how to load it unsafely.
        raise UserError(
            f"{spec_field}.uri: {uri} is not a .npz file, which is a zip archive of arrays; write it with numpy.savez"
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays: dict[str, NDArray[Any]] = {name: archive[name] for name in wanted.names if name in archive.files}
            names = list(archive.files)
    except ValueError as error:
        objects = "it holds arrays of Python objects, which are never unpickled; store numbers, or text as dtype 'U'"
        why = objects if "allow_pickle" in str(error) else error
        raise UserError(f"{spec_field}.uri: {uri} cannot be read as .npz: {why}") from error
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, AttributeError, TypeError, zipfile.error) as error:
        raise UserError(f"{spec_field}.uri: {uri} is not a whole .npz file: {error}") from error
    for name, array in arrays.items():
        if array.ndim == 0:
            raise UserError(f"{spec_field}.uri: the array {name!r} of {uri} is a single number, expected one a sample")
    return Table(arrays, names)


#: One reader for each ending of the API; a test compares them.
READERS: Mapping[str, Reader] = {"npz": read_npz, "parquet": read_parquet, "csv": read_csv, "jsonl": read_jsonl}
