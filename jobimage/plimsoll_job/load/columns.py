"""What every format is read into: columns, one entry a sample each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Columns:
    """Columns by their names, the digest of all bytes read, and the names of the classes where the format has them."""

    arrays: Mapping[str, NDArray[Any]]
    digest: str
    classes: tuple[str, ...] = ()
