"""ONNX models whose large constants are not in memory: each is read, or computed, when it is written.

A file is written as protobuf lays it out, one constant after another, and read by where its constants lie.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from plimsoll_job.export.wire import LENGTH, fields, tag, varint
from plimsoll_job.scratch import Scratch

#: What gives the numbers of a constant, each time anew.
Numbers = Callable[[], NDArray[Any]]

#: Constants of fewer bytes stay in the graph: shapes and axes, which tools read there.
SMALL_BYTES = 1 << 10
#: Bytes that external data is aligned to, as the format recommends.
ALIGNMENT = 1 << 12
#: Where the format has the parts: fields of ModelProto, of GraphProto, of TensorProto.
GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
#: Several numbers a byte, which the graph keeps.
PACKED = frozenset(
    getattr(TensorProto, name)
    for name in ("INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1")
    if hasattr(TensorProto, name)
)


@dataclass(frozen=True)
class Stored:
    """Numbers in a file, read anew each time that they are asked for."""

    path: Path
    kind: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int = 0
    #: The directory that the file goes with.
    scratch: Scratch | None = None

    def __call__(self) -> NDArray[Any]:
        """Return the numbers."""
        count = math.prod(self.shape)
        return np.fromfile(self.path, self.kind, count, offset=self.offset).reshape(self.shape)


def branches_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs within the node: branches of If, bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that the node reads, those among them that only its branches do."""
    yield from node.input
    for branch in branches_of(node):
        yield from (value.name for value in branch.output)
        for inner in branch.node:
            yield from read_by(inner)


@dataclass
class LeanModel:
    """A model: those of the initializers that `numbers` names have only their names, types and shapes in `proto`."""

    proto: onnx.ModelProto
    numbers: dict[str, Numbers] = field(default_factory=dict)

    def add(self, name: str, kind: int, shape: tuple[int, ...], numbers: Numbers) -> None:
        """Add an initializer of that ONNX type; large numbers are asked for when they are needed, each time."""
        constant = self.proto.graph.initializer.add(dims=shape)
        self.replace(constant, name, kind, numbers)

    def replace(self, constant: TensorProto, name: str, kind: int, numbers: Numbers) -> None:
        """Make an initializer one of another name and type, of the same shape, with these numbers."""
        self.numbers.pop(constant.name, None)
        constant.CopyFrom(TensorProto(name=name, data_type=kind, dims=constant.dims))
        if _bytes_of(constant) < SMALL_BYTES:
            constant.raw_data = bytes(stored(numbers()))
        else:
            self.numbers[name] = numbers

    def array(self, constant: TensorProto) -> NDArray[Any]:
        """Return the numbers of an initializer."""
        numbers = self.numbers.get(constant.name)
        return numpy_helper.to_array(constant) if numbers is None else numbers()

    def source(self, constant: TensorProto) -> Numbers:
        """Return what gives the numbers of an initializer, also after that is gone from the model."""
        return self.numbers.get(constant.name) or partial(np.asarray, numpy_helper.to_array(constant))

    def set_nodes(self, nodes: Sequence[onnx.NodeProto]) -> None:
        """Have these nodes in the place of those that there are, which may be among them."""
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(kept)

    def alone(self, constant: TensorProto) -> TensorProto:
        """Return the initializer with its numbers, for a tool that reads them there.

        It is a message of its own: what a graph was given once stays in memory as long as the graph.
        """
        return numpy_helper.from_array(self.array(constant), constant.name)

    def take(self, constants: Iterable[TensorProto], scratch: Scratch) -> None:
        """Add initializers whose numbers, where they are many, go to a file in the directory."""
        path = scratch.path / "numbers"
        with path.open("ab") as file:
            for constant in constants:
                kind, shape = helper.tensor_dtype_to_np_dtype(constant.data_type), tuple(constant.dims)
                if len(constant.raw_data) < SMALL_BYTES:
                    self.proto.graph.initializer.append(constant)
                else:
                    self.add(constant.name, constant.data_type, shape, Stored(path, kind, shape, file.tell(), scratch))
                    file.write(constant.raw_data)

    def drop_unread(self) -> None:
        """Take out the constants that no node reads."""
        graph = self.proto.graph
        read = {name for node in graph.node for name in read_by(node)} | {value.name for value in graph.output}
        for index in reversed(range(len(graph.initializer))):
            if graph.initializer[index].name not in read:
                del graph.initializer[index]
        self.numbers = {name: numbers for name, numbers in self.numbers.items() if name in read}

    def size_bytes(self) -> int:
        """Return the bytes of the file that `write` makes."""
        return sum(len(part) for part in self._parts(lambda constant: range(_bytes_of(constant))))

    def write(self, path: Path) -> None:
        """Write the whole model as one file."""
        with path.open("wb") as file:
            for part in self._parts(lambda constant: stored(self.array(constant))):
                file.write(part)

    def write_apart(self, path: Path) -> None:
        """Write the graph, and what `numbers` gives into `<path>.data`, which ONNX Runtime maps instead of reading."""
        beside = path.with_name(f"{path.name}.data")
        graph = onnx.ModelProto()
        graph.CopyFrom(self.proto)
        with beside.open("wb") as file:
            for constant in graph.graph.initializer:
                if constant.name in self.numbers:
                    file.seek(-(-file.tell() // ALIGNMENT) * ALIGNMENT)
                    _point(constant, beside.name, file.tell(), _bytes_of(constant))
                    file.write(stored(self.array(constant)))
        path.write_bytes(graph.SerializeToString(deterministic=True))

    def _parts(self, content_of: Callable[[TensorProto], Any]) -> Iterator[Any]:
        """Yield the file's bytes in parts; of the large constants what `content_of` returns, of the same length."""
        graph = onnx.GraphProto()
        graph.CopyFrom(self.proto.graph)
        constants = list(self.proto.graph.initializer)
        del graph.initializer[:]
        beside = onnx.ModelProto()
        beside.CopyFrom(self.proto)
        beside.ClearField("graph")
        nodes = graph.SerializeToString(deterministic=True)
        heads = [self._head(constant) for constant in constants]
        bodies = [_bytes_of(one) if one.name in self.numbers else 0 for one in constants]
        length = len(nodes) + sum(len(head) + body for head, body in zip(heads, bodies, strict=True))
        yield beside.SerializeToString(deterministic=True)
        yield tag(GRAPH, LENGTH) + varint(length)
        yield nodes
        for constant, head in zip(constants, heads, strict=True):
            yield head
            if constant.name in self.numbers:
                yield content_of(constant)

    def _head(self, constant: TensorProto) -> bytes:
        """Return what stands in the file before the numbers of a constant; all of it, where they are small."""
        head: bytes = constant.SerializeToString(deterministic=True)
        body = 0
        if constant.name in self.numbers:
            body = _bytes_of(constant)
            head += tag(RAW_DATA, LENGTH) + varint(body)
        return tag(INITIALIZER, LENGTH) + varint(len(head) + body) + head


def read_lean(path: Path, scratch: Scratch | None = None, *, outside: bool = True) -> LeanModel:
    """Return the model of the file, whose large constants stay there; DecodeError or ValueError for a torn file.

    The file must stay as it is while the model is in use; the scratch directory, where it lies in one, does. What lies
    in other files is not looked for where `outside` is false.
    """
    model = LeanModel(onnx.ModelProto())
    beside, graph, constants = bytearray(), bytearray(), []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for number, start, at, end in fields(content, 0, len(content)):
            if number != GRAPH:
                beside += content[start:end]
                continue
            for inner, first, inner_at, last in fields(content, at, end):
                if inner == INITIALIZER:
                    constants.append(_read_constant(content, inner_at, last))
                else:
                    graph += content[first:last]
    model.proto.MergeFromString(bytes(beside))
    model.proto.graph.MergeFromString(bytes(graph))
    for constant, place in constants:
        numbers = numbers_at(path, constant, place, scratch) if outside or place else None
        if numbers is not None:
            model.numbers[constant.name] = numbers
        model.proto.graph.initializer.append(constant)
    return model


def _read_constant(content: mmap.mmap, start: int, end: int) -> tuple[TensorProto, tuple[int, int] | None]:
    """Return the constant, without its numbers where they are large, and then the place and the length of those."""
    kept, place = bytearray(), None
    for number, first, at, last in fields(content, start, end):
        if number == RAW_DATA and last - at >= SMALL_BYTES:
            place = (at, last - at)
        else:
            kept += content[first:last]
    return TensorProto.FromString(bytes(kept)), place


def numbers_at(
    path: Path, constant: TensorProto, place: tuple[int, int] | None, scratch: Scratch | None
) -> Numbers | None:
    """Return what reads the numbers from the file, or from one beside it; None where the constant has them itself.

    ValueError where they are more or fewer than the constant's.
    """
    if constant.data_location == TensorProto.EXTERNAL:
        outside = {one.key: one.value for one in constant.external_data}
        path = path.with_name(outside["location"])
        place = int(outside.get("offset") or 0), int(outside.get("length") or _bytes_of(constant))
        del constant.external_data[:]
        constant.ClearField("data_location")
    if place is None:
        return None
    offset, length = place
    if length != _bytes_of(constant) and constant.data_type not in PACKED:
        raise ValueError(f"tensor {constant.name!r} has {length} bytes for the shape {list(constant.dims)}")
    kind = helper.tensor_dtype_to_np_dtype(constant.data_type)
    if constant.data_type in PACKED:
        constant.raw_data = Stored(path, np.dtype(np.uint8), (length,), offset)().tobytes()
        return None
    return Stored(path, kind, tuple(constant.dims), offset, scratch)


def _bytes_of(constant: TensorProto) -> int:
    numbers = int(math.prod(constant.dims))
    return numbers * int(helper.tensor_dtype_to_np_dtype(constant.data_type).itemsize)


def stored(array: NDArray[Any]) -> memoryview:
    """Return the array's bytes as files have them, without a copy where they lie so already."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _point(constant: TensorProto, location: str, offset: int, length: int) -> None:
    constant.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = constant.external_data.add()
        entry.key, entry.value = key, value
