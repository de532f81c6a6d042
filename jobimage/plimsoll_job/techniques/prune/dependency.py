"""torch-pruning, imported without what it looks for on the way: every run of the job image pays for its imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Let imports of the package fail for a while, unless it is there already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what Python documents for a module that must not be found
    try:
        yield
    finally:
        del sys.modules[name]


# Its counter of operations, which nothing here asks for, imports timm where it is installed: five seconds.
with _absent("timm"):
    import torch_pruning as tp

__all__ = ["tp"]
