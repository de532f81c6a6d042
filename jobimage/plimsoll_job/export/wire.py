"""Protobuf's wire format, as far as files of models are read and written past their large fields."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

#: The wire type of what has a length of its own.
LENGTH = 2
#: No number of the format takes more bits.
MAX_BITS = 64


def fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the number of each field, where it starts, where its value starts and where it ends.

    ValueError where the content ends within a field, or has none of the format.
    """
    while at < end:
        start = at
        key, at = _read_varint(content, at)
        value = at
        match key & 7:
            case 0:
                _, at = _read_varint(content, at)
            case 1:
                at += 8
            case 2:
                length, value = _read_varint(content, at)
                at = value + length
            case 5:
                at += 4
            case kind:
                raise ValueError(f"no such wire type: {kind}")
        if at > end:
            raise ValueError("the file ends within a field")
        yield key >> 3, start, value, at


def _read_varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(content) or shift >= MAX_BITS:
            raise ValueError("the file ends within a number")
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def varint(number: int) -> bytes:
    """Return the number as the format has it: seven bits a byte, the lowest first."""
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    return bytes([*written, number])


def tag(number: int, kind: int) -> bytes:
    """Return what stands before a field of this number and wire type."""
    return varint(number << 3 | kind)
