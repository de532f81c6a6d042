"""Folders with the files of image layers, made once and kept in the cache by what they are made from."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.locks import exclusive
from tests.cluster.progress import say
from tests.cluster.settings import cache_directory

_KEPT_SECONDS = 3 * 86400


def ensure_layer(name: str, key: str, write: Callable[[Path], None]) -> Path:
    """Return the folder of the layer `name` with the key `key`, made by `write` unless the cache holds it."""
    folder = cache_directory() / "layers" / f"{name}-{key[:16]}"
    with exclusive(f"layer-{name}"):
        if not folder.is_dir():
            say(f"making the files of {name}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
            try:
                (scratch / "root").mkdir(mode=0o755)
                write(scratch / "root")
                (scratch / "root").rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            say(f"made the files of {name}")
    os.utime(folder)
    return folder


def copy_linked(source: Path, target: Path) -> None:
    """Copy the tree by hard links: nobody writes to a layer, so its files can be shared."""
    run("cp", "-al", "--no-target-directory", source, target)


def prune_layers() -> None:
    """Delete the layers that nothing has used for three days."""
    for folder in (cache_directory() / "layers").glob("*"):
        if time.time() - folder.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def key_of(*parts: str | bytes | Path) -> str:
    """Return a digest of texts, bytes and files (or all files below a folder, with their paths)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for file in _files(part):
                digest.update(f"\0{file.relative_to(part.parent)}\0".encode() + file.read_bytes())
        else:
            digest.update(b"\0" + (part.encode() if isinstance(part, str) else part))
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
