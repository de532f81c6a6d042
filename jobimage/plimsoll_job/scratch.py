"""Directories for what would else be held in memory: files as large as the weights."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path


class Scratch:
    """A directory that goes when nothing refers to this object any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="plimsoll-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
