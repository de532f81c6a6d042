"""Directories for what would else be held in memory: files as large as the weights."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path


class Scratch:
    """A directory that goes when nothing refers to this object any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="plimsoll-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True)
class HeldFile:
    """A file, and the directory that goes with the last reference to this; none where the file is there to stay."""

    path: Path
    scratch: Scratch | None = None

    @property
    def size_bytes(self) -> int:
        """The bytes of the file."""
        return self.path.stat().st_size
