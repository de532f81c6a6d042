"""What every format is read into: columns, one entry a sample each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray


@dataclass(frozen=True)
class Wanted:
    """The columns to read, and those of them that are text whatever they look like: a class may be called 007."""

    names: Sequence[str]
    as_text: frozenset[str] = frozenset()


class Table(NamedTuple):
    """The wanted columns that a file has, by their names, and the names of all that it has."""

    arrays: Mapping[str, NDArray[Any]]
    names: Sequence[str]


@dataclass(frozen=True)
class Columns:
    """Columns by their names, the digest of all bytes read, the names of the classes where the format has them.

    `found` names all columns, also those that were not wanted.
    """

    arrays: Mapping[str, NDArray[Any]]
    digest: str
    classes: tuple[str, ...] = ()
    found: Sequence[str] = ()
