"""Data sets that Hugging Face's `Dataset.save_to_disk` wrote, read as Arrow: the very bytes that the digest is of."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.data import DataSource
from plimsoll_api.images import Images
from plimsoll_api.model import canonical_json, digest_of
from plimsoll_job.errors import UserError
from plimsoll_job.load.columns import Columns, Wanted
from plimsoll_job.load.images import decode_image
from plimsoll_job.load.store import Store
from plimsoll_job.load.tables import array_of, columns_of

STATE_FILE, INFO_FILE, SPLITS_FILE = "state.json", "dataset_info.json", "dataset_dict.json"
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def is_dataset(directory: Path) -> bool:
    """Tell whether the directory is a data set, or a group of them, that the library wrote."""
    return (directory / STATE_FILE).is_file() or (directory / SPLITS_FILE).is_file()


def read_dataset(source: DataSource, store: Store, spec_field: str, wanted: Wanted) -> Columns:
    """Return the wanted columns; UserError for a group of splits, torn files, and columns without array form.

    The names of classes are those of the label column's feature. Images are decoded as the source says.
    """
    uri, field = source.uri, f"{spec_field}.uri"
    if store.locate(f"{uri}/{SPLITS_FILE}", field).is_file():
        splits = _parsed(store.read(f"{uri}/{SPLITS_FILE}", field), uri, field).get("splits", [])
        raise UserError(
            f"{field}: {uri} is a group of data sets; name one of them, such as {uri}/{(splits or ['train'])[0]}"
        )
    files = {name: store.read(f"{uri}/{name}", field) for name in (STATE_FILE, INFO_FILE)}
    state, info = (_parsed(files[name], uri, field) for name in (STATE_FILE, INFO_FILE))
    try:
        shards = [str(file["filename"]) for file in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{field}: {uri}/{STATE_FILE} names no data files") from error
    for shard in shards:
        files[shard] = store.read(f"{uri}/{shard}", field)
    arrays, found = columns_of(
        lambda: _table([files[shard] for shard in shards]),
        (uri, spec_field, "Arrow"),
        wanted,
        lambda column, name: _array(column, name, source, spec_field),
    )
    if source.images is not None and not any(array.ndim == 4 for array in arrays.values()):
        raise UserError(f"{spec_field}.images: {uri} has no column of images")
    digests = {name: digest_of(content) for name, content in files.items()}
    return Columns(arrays, digest_of(canonical_json(digests)), _classes(info, source.labels), found)


def _parsed(content: bytes, uri: str, field: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise UserError(f"{field}: {uri} is not a whole data set: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{field}: {uri} is not a whole data set")
    return value


def _table(shards: Sequence[bytes]) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    # Arrow reads a stream that was cut between two batches without a word.
    if not all(shard.endswith(END_OF_STREAM) for shard in shards):
        raise ValueError("its end is missing")
    return pa.concat_tables([pa.ipc.open_stream(io.BytesIO(shard)).read_all() for shard in shards])


def _array(column: Any, name: str, source: DataSource, spec_field: str) -> NDArray[Any]:
    import pyarrow as pa  # noqa: PLC0415

    if not (pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0):
        return array_of(column, name, spec_field)
    images = []
    for row, image in enumerate(column.to_pylist()):
        if not image or image["bytes"] is None:
            raise UserError(
                f"{spec_field}.uri: the image of sample {row} in {name!r} is a path elsewhere; embed its bytes"
            )
        images.append(
            decode_image(image["bytes"], source.images or Images(), f"{spec_field}.uri: {name!r} of sample {row}")
        )
    return np.stack(images) if images else np.zeros((0, 1, 1, 1), dtype=np.float32)


def _classes(info: dict[str, Any], labels: str) -> tuple[str, ...]:
    """Return the names that the feature of the label column, or of its lists, has."""
    feature = (info.get("features") or {}).get(labels) or {}
    names = (feature.get("feature") or feature).get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names or ()))
