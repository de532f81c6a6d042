"""Stores: where `pvc://claim/path` lies on this machine."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from plimsoll_api.names import CLAIMS_DIRECTORY
from plimsoll_job.errors import TransientError, UserError

SCHEME = "pvc://"
#: What is held of a file while it is copied.
PART_BYTES = 1 << 20


@dataclass(frozen=True)
class Store:
    """Claims mounted below one directory, and single ones mounted elsewhere."""

    claims: Path = Path(CLAIMS_DIRECTORY)
    mounts: Mapping[str, Path] = field(default_factory=dict)

    def locate(self, uri: str, spec_field: str) -> Path:
        """Return the path of the URI; UserError when the claim is not mounted or the path leaves it."""
        if not uri.startswith(SCHEME):
            raise UserError(f"{spec_field}: expected {SCHEME}claim/path, got {uri}")
        claim, _, inside = uri.removeprefix(SCHEME).partition("/")
        if not claim or claim in (".", ".."):
            raise UserError(f"{spec_field}: {uri} names no claim")
        root = self.mounts.get(claim, self.claims / claim)
        if not root.is_dir():
            raise UserError(f"{spec_field}: the claim {claim!r} is not mounted at {root}", reason="ClaimNotMounted")
        root = root.resolve()
        path = (root / inside).resolve()
        if not path.is_relative_to(root):
            raise UserError(f"{spec_field}: {uri} leads out of its claim", reason="PathEscape")
        return path

    def read(self, uri: str, spec_field: str) -> bytes:
        """Return the bytes of the file; UserError when there is none."""
        with self._open(uri, spec_field) as file:
            content: bytes = file.read()
        return content

    def digest(self, uri: str, spec_field: str) -> str:
        """Return `sha256:` and the digest of the file's bytes, read in parts; UserError when there is none."""
        with self._open(uri, spec_field) as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

    def copy(self, uri: str, spec_field: str, target: Path) -> str:
        """Copy the file, in parts, and return `sha256:` and the digest of its bytes; UserError when there is none."""
        digest = hashlib.sha256()
        with self._open(uri, spec_field) as file, target.open("wb") as copied:
            while part := file.read(PART_BYTES):
                digest.update(part)
                copied.write(part)
        return f"sha256:{digest.hexdigest()}"

    @contextlib.contextmanager
    def _open(self, uri: str, spec_field: str) -> Iterator[Any]:
        path = self.locate(uri, spec_field)
        try:
            with fsspec.open(f"file://{path}", "rb") as file:
                yield file
        except FileNotFoundError as error:
            raise UserError(f"{spec_field}: there is no file {uri}", reason="NotFound") from error
        except IsADirectoryError as error:
            if is_empty_folder(path):
                raise UserError(
                    f"{spec_field}: there is nothing at {uri} but an empty folder, which a kubelet makes in the place "
                    "of a path that is not there; remove it and put there what is meant",
                    reason="NotFound",
                ) from error
            raise UserError(f"{spec_field}: {uri} is a directory, expected a file") from error
        except PermissionError as error:
            raise UserError(f"{spec_field}: {uri} may not be read by this pod's user", reason="NotPermitted") from error
        except OSError as error:
            raise TransientError(
                f"{spec_field}: {uri} cannot be read now: {error}", reason="StoreUnreadable"
            ) from error


def is_empty_folder(path: Path) -> bool:
    """Return whether the path is a folder that holds nothing: what a pod that also writes the claim gets for none."""
    try:
        return path.is_dir() and not any(path.iterdir())
    except OSError:
        return False
