"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from plimsoll_api.model import canonical_json
from plimsoll_job.errors import TransientError, UserError

DIGESTS_FILE = "digests.json"
#: What waiting does not mend: a store that is mounted for reading, or belongs to somebody else.
CLOSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})

#: The bytes of a file, where they lie, or what writes them to a path: large ones never have to be in memory.
Content = bytes | Path | Callable[[Path], None]


def write_sealed(target: Path, files: Mapping[str, Content]) -> None:
    """Write the directory as `write_directory` does, with the digests of its files beside them."""

    def write_digests(path: Path) -> None:
        path.write_bytes(canonical_json({name: digest_of_file(path.parent / name) for name in files}))

    write_directory(target, {**files, DIGESTS_FILE: write_digests})


def is_whole(directory: Path) -> bool:
    """Return whether every file of a sealed directory is there with every byte as it was written."""
    try:
        digests = json.loads((directory / DIGESTS_FILE).read_bytes())
        return all(digest_of_file(directory / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def digest_of_file(path: Path) -> str:
    """Return `sha256:` and the hexadecimal digest of the file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def write_directory(target: Path, files: Mapping[str, Content]) -> None:
    """Make the directory hold exactly these files: written aside in this order, synced, then renamed into place.

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


def write_file(target: Path, content: Content) -> None:
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


def _write_synced(path: Path, content: Content) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        content(path)
    with path.open("rb+") as file:
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
        if error.errno in CLOSED:
            raise UserError(
                f"spec.output.uri: {target.name} may not be written there: {error.strerror}; name a store that this "
                "pod's user may write, mounted for writing",
                reason="StoreReadOnly",
            ) from error
        raise TransientError(
            f"spec.output.uri: cannot write {target.name}: {error.strerror or error}", reason="StoreUnwritable"
        ) from error
