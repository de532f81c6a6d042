"""Environments of the peers: outside the checkout, each over the project's own packages, and gone when it is left.

torch is not installed again: it takes gigabytes, and what is compared should run on the same one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.child import run

CACHE = Path(os.environ.get("PLIMSOLL_CACHE", Path.home() / ".cache" / "plimsoll"))
UV = CACHE / "uv" / "bin" / "uv"
#: Those, and what a package that carries a model asks for but does not need here.
LEFT_OUT = ("torch", "torchvision", "triton", "sentence-transformers")
INSTALL_SECONDS = 300


class NotInstalledError(Exception):
    """A peer cannot be had here; the message tells why."""


@contextmanager
def environment(name: str, requirements: Sequence[str], *, keep: bool) -> Iterator[Path]:
    """Give the interpreter of the peer's environment, the project's own where nothing else is needed."""
    if not requirements:
        yield Path(sys.executable)
        return
    folder = CACHE / "peers" / name
    try:
        yield _installed(folder, requirements)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _installed(folder: Path, requirements: Sequence[str]) -> Path:
    python, wanted = folder / "bin" / "python", folder / "requirements.txt"
    if wanted.is_file() and wanted.read_text() == "\n".join(requirements):
        return python
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "project.pth").write_text(sysconfig.get_paths()["purelib"])
    overrides = folder / "overrides.txt"
    overrides.write_text("".join(f"{shared} ; sys_platform == 'never'\n" for shared in LEFT_OUT))
    ended = run(
        [UV, "pip", "install", "--quiet", "--python", python, "--overrides", overrides, *requirements],
        limit_seconds=INSTALL_SECONDS,
    )
    if ended.code != 0:
        raise NotInstalledError(f"it cannot be installed here: {ended.reason}")
    wanted.write_text("\n".join(requirements))
    return python
