"""ONNX files, copied and verified: the graph, and the weights that lie in files of their own beside it."""

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
from plimsoll_job.boundary import check_passing
from plimsoll_job.errors import UserError
from plimsoll_job.export.lean import PACKED, SMALL_BYTES, LeanModel, Numbers, numbers_at, read_lean
from plimsoll_job.load.store import Store, is_empty_folder
from plimsoll_job.load.text import read_text_files
from plimsoll_job.load.weights import WEIGHTS_FIELD
from plimsoll_job.scratch import HeldFile, Scratch

#: What protobuf can hold, and with it a model.onnx of an artifact.
MAX_BYTES = 2**31 - 1


@dataclass(frozen=True)
class OnnxFile:
    """What was read: the model, its weights in copies of its files, what lies beside it, the digest of those files."""

    model: LeanModel
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
    scratch = Scratch()
    copy = scratch.path / MODEL_FILE
    digests = {MODEL_FILE: store.copy(uri, WEIGHTS_FIELD, copy)}
    # What protobuf raises is of its own.
    try:
        model = read_lean(copy, scratch, outside=False)
    except Exception as error:
        check_passing(error)
        raise _unreadable(f"{uri} is not a whole ONNX file: {error}") from error
    if not model.proto.graph.node:
        raise _unreadable(f"{uri} is not an ONNX file, or its graph is empty")
    read = copy.stat().st_size

    def copy_beside(name: str) -> HeldFile:
        nonlocal read
        if not folder:
            raise UserError(
                f"{WEIGHTS_FIELD}: {uri} keeps weights in {name!r} beside it; call the model {MODEL_FILE} and name its "
                "folder, of which pods see every file"
            )
        _check_inside(name, folder, store)
        copied = HeldFile(scratch.path / f"{len(digests)}.data", scratch)
        digests[name] = store.copy(f"{folder}/{name}", WEIGHTS_FIELD, copied.path)
        read += copied.size_bytes
        if read > MAX_BYTES:
            raise _unreadable(
                f"{uri} has more than {MAX_BYTES} bytes with its weights, which no single ONNX file holds"
            )
        return copied

    _take_in(model, copy_beside, uri)
    constants = len(model.proto.graph.initializer)
    for at, tensor in enumerate(tensors_of(model.proto)):
        _check_numbers(tensor, model.numbers.get(tensor.name) if at < constants else None, uri)
    whole = digests[MODEL_FILE] if len(digests) == 1 else digest_of(canonical_json(digests))
    return OnnxFile(model, files, whole)


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield the constants of the graph: initializers first, then attributes of nodes."""
    yield from model.graph.initializer
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _take_in(model: LeanModel, copy_beside: Callable[[str], HeldFile], uri: str) -> None:
    """Have the weights that lie in other files in the model, from copies of those."""
    copies: dict[str, HeldFile] = {}
    constants = len(model.proto.graph.initializer)
    for at, tensor in enumerate(tensors_of(model.proto)):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        settings = {entry.key: entry.value for entry in tensor.external_data}
        name = settings.get("location", "")
        if name not in copies:
            copies[name] = copy_beside(name)
        place = _place(tensor, settings, copies[name], name)
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT
        if at >= constants or place[1] < SMALL_BYTES:
            tensor.raw_data = _bytes_at(copies[name], place)
            continue
        # What wrong types raise is of any type.
        try:
            numbers = numbers_at(copies[name].path, tensor, place, copies[name].scratch)
        except Exception as error:
            check_passing(error)
            raise _unreadable(f"tensor {tensor.name!r} of {uri} is damaged: {error}") from error
        if numbers is not None:
            model.numbers[tensor.name] = numbers


def _place(tensor: TensorProto, settings: Mapping[str, str], stored: HeldFile, name: str) -> tuple[int, int]:
    """Return where the tensor's bytes lie; UserError where they are not there, or not those that were written."""
    try:
        offset = int(settings.get("offset") or 0)
        length = int(settings.get("length") or stored.size_bytes - offset)
    except ValueError as error:
        raise _unreadable(f"the place of tensor {tensor.name!r} in {name} is no number") from error
    if offset < 0 or length < 0 or offset + length > stored.size_bytes:
        raise _unreadable(
            f"tensor {tensor.name!r} lies at bytes {offset} to {offset + length} of {name}, which has "
            f"{stored.size_bytes}"
        )
    wanted = settings.get("checksum")
    # The format's own choice, which tells torn files; what the model is, spec.model.digest tells.
    if (
        wanted
        and wanted.lower() != hashlib.sha1(_bytes_at(stored, (offset, length)), usedforsecurity=False).hexdigest()
    ):
        raise _unreadable(f"tensor {tensor.name!r} of {name} has not the checksum that the model states")
    return offset, length


def _bytes_at(stored: HeldFile, place: tuple[int, int]) -> bytes:
    with stored.path.open("rb") as file:
        file.seek(place[0])
        return file.read(place[1])


def _check_inside(name: str, folder: str, store: Store) -> None:
    """UserError when the name leads out of the folder, by itself or by a link."""
    parts = PurePosixPath(name).parts
    root = store.locate(folder, WEIGHTS_FIELD)
    plain = name and "\\" not in name and not name.startswith("/") and ".." not in parts
    if not plain or not (root / name).resolve().is_relative_to(root):
        raise UserError(
            f"{WEIGHTS_FIELD}: the model names weights at {name!r}, which is not inside its folder", reason="PathEscape"
        )


def _check_numbers(tensor: TensorProto, numbers: Numbers | None, uri: str) -> None:
    """UserError when the tensor's bytes are not those of its shape, or hold numbers that are not finite.

    `numbers` gives them where they are not in the tensor.
    """
    if tensor.data_type == TensorProto.STRING:
        return
    try:
        size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * math.prod(tensor.dims)
        if tensor.HasField("raw_data") and tensor.data_type not in PACKED and len(tensor.raw_data) != size:
            raise ValueError(f"{len(tensor.raw_data)} bytes for the shape {list(tensor.dims)}")
        array = numpy_helper.to_array(tensor) if numbers is None else numbers()
    # What wrong types and sizes raise is of any type.
    except Exception as error:
        check_passing(error)
        raise _unreadable(f"tensor {tensor.name!r} of {uri} is damaged: {error}") from error
    # A mask of attention is made of minus infinity, a weight is not.
    if np.issubdtype(array.dtype, np.floating) and array.ndim > 1 and not np.isfinite(array).all():
        raise UserError(f"{WEIGHTS_FIELD}: tensor {tensor.name!r} of {uri} holds NaN or infinite numbers")


def _unreadable(what: str) -> UserError:
    return UserError(f"{WEIGHTS_FIELD}: {what}", reason="WeightsUnreadable")
