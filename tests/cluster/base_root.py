"""The files of a base image like python:slim, made by debootstrap: no image registry is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster.binaries import install_debian
from tests.cluster.commands import run
from tests.cluster.layers import ensure_layer, key_of

_SUITE = "bookworm"
_PACKAGES = "python3,python-is-python3,ca-certificates"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")


def ensure_base() -> tuple[str, Path]:
    """Return the key of the base and the folder that holds its files: Debian, Python 3.11, no pip."""
    # The machine's authorities: builds then trust whatever this machine trusts, also behind a company's proxy.
    authorities = Path(CERTIFICATES)
    key = key_of(_SUITE, _PACKAGES, authorities if authorities.exists() else "")
    return key, ensure_layer("base", key, _write)


def _write(root: Path) -> None:
    install_debian({"debootstrap": "debootstrap"})
    run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, root)
    for path in _NOT_NEEDED:
        shutil.rmtree(root / path, ignore_errors=True)
        (root / path).mkdir(parents=True)
    if Path(CERTIFICATES).exists():
        shutil.copyfile(CERTIFICATES, root / CERTIFICATES.lstrip("/"))
