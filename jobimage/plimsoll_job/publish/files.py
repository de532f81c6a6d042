"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from plimsoll_job.errors import TransientError


def write_directory(target: Path, files: Mapping[str, bytes]) -> None:
    """Make the directory hold exactly these files: written aside, synced, then renamed into place.

    When another pod was first, its directory stays: names in a store are digests or finished steps, so both are
    the same.
    """
    with _storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}-", dir=target.parent))
        try:
            aside.chmod(0o755)
            for name, content in files.items():
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                _write_synced(aside / name, content)
            _sync_directory(aside)
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                _rename_unless_there(aside, target)
            _sync_directory(target.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def write_file(target: Path, content: bytes) -> None:
    """Make the file hold the content: written aside, synced, then renamed into place."""
    with _storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(prefix=f".{target.name[:40]}-", dir=target.parent)
        os.close(descriptor)
        try:
            _write_synced(Path(aside), content)
            Path(aside).replace(target)
            _sync_directory(target.parent)
        finally:
            Path(aside).unlink(missing_ok=True)


def _rename_unless_there(aside: Path, target: Path) -> None:
    try:
        aside.rename(target)
    except OSError as error:
        # Linux answers ENOTEMPTY where another pod's directory is there already.
        if not target.is_dir():
            raise
        raise FileExistsError(str(target)) from error


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _storage_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError(
            f"spec.output.uri: cannot write {target.name}: {error.strerror or error}", reason="StoreUnwritable"
        ) from error
