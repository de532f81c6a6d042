"""ONNX files as verified bytes: the graph, and the weights that lie in files of their own beside it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from plimsoll_api.artifact import MODEL_FILE
from plimsoll_api.model import canonical_json, digest_of
from plimsoll_job.errors import UserError
from plimsoll_job.load.store import Store, is_empty_folder
from plimsoll_job.load.text import read_text_files
from plimsoll_job.load.weights import WEIGHTS_FIELD

#: What protobuf can hold, and with it a model.onnx of an artifact.
MAX_BYTES = 2**31 - 1


@dataclass(frozen=True)
class OnnxFile:
    """What was read: the model with all its weights, what lies beside it, the digest of the model's files."""

    model: onnx.ModelProto
    files: Mapping[str, bytes]
    digest: str


def read_onnx(uri: str, store: Store) -> OnnxFile:
    """Read a .onnx file, or model.onnx of a folder with its external data; UserError for what is torn or unsafe.

    The digest is that of the file; with external data that of the canonical JSON of a map from each file to its own.
    """
    path, folder = store.locate(uri, WEIGHTS_FIELD), ""
    files: dict[str, bytes] = {}
    if path.is_dir() and not is_empty_folder(path):
        folder, uri = uri, f"{uri}/{MODEL_FILE}"
        files = read_text_files(folder, store, WEIGHTS_FIELD)
    content = store.read(uri, WEIGHTS_FIELD)
    # What protobuf raises is of its own.
    try:
        model = onnx.load_from_string(content)
    except Exception as error:
        raise _unreadable(f"{uri} is not a whole ONNX file: {error}") from error
    if not model.graph.node:
        raise _unreadable(f"{uri} is not an ONNX file, or its graph is empty")
    digests, read = {MODEL_FILE: digest_of(content)}, len(content)
    del content

    def read_beside(name: str) -> bytes:
        nonlocal read
        if not folder:
            raise UserError(
                f"{WEIGHTS_FIELD}: {uri} keeps weights in {name!r} beside it; call the model {MODEL_FILE} and name its "
                "folder, of which pods see every file"
            )
        _check_inside(name, folder, store)
        stored = store.read(f"{folder}/{name}", WEIGHTS_FIELD)
        digests[name] = digest_of(stored)
        read += len(stored)
        if read > MAX_BYTES:
            raise _unreadable(
                f"{uri} has more than {MAX_BYTES} bytes with its weights, which no single ONNX file holds"
            )
        return stored

    _take_in(model, read_beside)
    for tensor in tensors_of(model):
        _check_numbers(tensor, uri)
    whole = digests[MODEL_FILE] if len(digests) == 1 else digest_of(canonical_json(digests))
    return OnnxFile(model, files, whole)


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield the constants of the graph: initializers and attributes of nodes."""
    yield from model.graph.initializer
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _take_in(model: onnx.ModelProto, read_beside: Callable[[str], bytes]) -> None:
    """Put the weights that lie in other files into the model, file by file."""
    outside: dict[str, list[TensorProto]] = {}
    for tensor in tensors_of(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            outside.setdefault(_settings(tensor).get("location", ""), []).append(tensor)
    for name, tensors in outside.items():
        stored = read_beside(name)
        for tensor in tensors:
            tensor.raw_data = _part(tensor, stored, name)
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT


def _settings(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _part(tensor: TensorProto, stored: bytes, name: str) -> bytes:
    """Return the tensor's bytes of the file; UserError where they are not there, or not those that were written."""
    settings = _settings(tensor)
    try:
        offset = int(settings.get("offset") or 0)
        length = int(settings.get("length") or len(stored) - offset)
    except ValueError as error:
        raise _unreadable(f"the place of tensor {tensor.name!r} in {name} is no number") from error
    if offset < 0 or length < 0 or offset + length > len(stored):
        raise _unreadable(
            f"tensor {tensor.name!r} lies at bytes {offset} to {offset + length} of {name}, which has {len(stored)}"
        )
    part = stored[offset : offset + length]
    wanted = settings.get("checksum")
    # The format's own choice, which tells torn files; what the model is, spec.model.digest tells.
    if wanted and wanted.lower() != hashlib.sha1(part, usedforsecurity=False).hexdigest():
        raise _unreadable(f"tensor {tensor.name!r} of {name} has not the checksum that the model states")
    return part


def _check_inside(name: str, folder: str, store: Store) -> None:
    """UserError when the name leads out of the folder, by itself or by a link."""
    parts = PurePosixPath(name).parts
    root = store.locate(folder, WEIGHTS_FIELD)
    plain = name and "\\" not in name and not name.startswith("/") and ".." not in parts
    if not plain or not (root / name).resolve().is_relative_to(root):
        raise UserError(
            f"{WEIGHTS_FIELD}: the model names weights at {name!r}, which is not inside its folder", reason="PathEscape"
        )


def _check_numbers(tensor: TensorProto, uri: str) -> None:
    """UserError when the tensor's bytes are not those of its shape, or hold numbers that are not finite."""
    if tensor.data_type == TensorProto.STRING:
        return
    try:
        size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * math.prod(tensor.dims)
        if tensor.HasField("raw_data") and tensor.data_type not in SMALL_TYPES and len(tensor.raw_data) != size:
            raise ValueError(f"{len(tensor.raw_data)} bytes for the shape {list(tensor.dims)}")
        array = numpy_helper.to_array(tensor)
    # What wrong types and sizes raise is of any type.
    except Exception as error:
        raise _unreadable(f"tensor {tensor.name!r} of {uri} is damaged: {error}") from error
    # A mask of attention is made of minus infinity, a weight is not.
    if np.issubdtype(array.dtype, np.floating) and array.ndim > 1 and not np.isfinite(array).all():
        raise UserError(f"{WEIGHTS_FIELD}: tensor {tensor.name!r} of {uri} holds NaN or infinite numbers")


#: Several numbers a byte.
SMALL_TYPES = frozenset(
    getattr(TensorProto, name)
    for name in ("INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1")
    if hasattr(TensorProto, name)
)


def _unreadable(what: str) -> UserError:
    return UserError(f"{WEIGHTS_FIELD}: {what}", reason="WeightsUnreadable")
