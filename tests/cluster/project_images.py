"""The project's two images made the fast way: the content of the Dockerfiles, without a docker build.

Three layers each: the base, the locked dependencies, the project. A change of code makes only the last one anew.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.cluster.base_root import CERTIFICATES, ensure_base
from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.image_store import Image, Layer
from tests.cluster.layers import copy_linked, ensure_layer, key_of
from tests.cluster.settings import cache_directory

CHECKOUT = Path(__file__).resolve().parents[2]
SITE = "opt/plimsoll"
"""Where both ways of making an image put Python's packages."""
PROJECT = (
    "api",
    "operator/plimsoll_operator",
    "jobimage/plimsoll_job",
    "cli",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
_FORMAT = "2"  # raise it when this module changes what it writes


@dataclass(frozen=True)
class ProjectImage:
    """One of the images: what it is called, what it installs and what it runs."""

    name: str
    lock: str
    dockerfile: str
    module: str


OPERATOR = ProjectImage(
    "docker.io/plimsoll/operator:dev", "locks/operator.txt", "operator/Dockerfile", "plimsoll_operator"
)
JOB = ProjectImage("docker.io/plimsoll/job:dev", "locks/job.txt", "jobimage/Dockerfile", "plimsoll_job")
PROJECT_IMAGES = (OPERATOR, JOB)


def fast_image(which: ProjectImage) -> Image:
    """Return the image, with the files of its layers in the cache."""
    layers = [
        Layer(key, partial(copy_linked, folder)) for key, folder in (ensure_base(), _dependencies(which), _project())
    ]
    environment = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        f"PYTHONPATH=/{SITE}",
        "PYTHONDONTWRITEBYTECODE=1",
        "PYTHONUNBUFFERED=1",
        "HOME=/tmp",
        f"SSL_CERT_FILE={CERTIFICATES}",
    ]
    entry = ["python3", "-m", which.module]
    config = {"User": "65532:65532", "WorkingDir": "/tmp", "Env": environment, "Entrypoint": entry}
    return Image(which.name, layers, config)


def site_folders(which: ProjectImage) -> list[Path]:
    """Return the folders whose content together is the image's Python packages, but for the base's own."""
    return [folder / SITE for _, folder in (_dependencies(which), _project())]


def uv() -> Path:
    """Return the uv that `make venv` installs; the Python beside it has hatchling."""
    program = cache_directory() / "uv" / "bin" / "uv"
    if not program.exists():
        raise ClusterError(f"{program} is not there: run `make venv` first")
    return program


def _dependencies(which: ProjectImage) -> tuple[str, Path]:
    lock = CHECKOUT / which.lock
    base, base_folder = ensure_base()
    key = key_of(_FORMAT, base, lock)
    return key, ensure_layer(f"{which.module}-dependencies", key, partial(_install_locked, lock, base_folder))


def _install_locked(lock: Path, base: Path, root: Path) -> None:
    _uv_install(root, "--require-hashes", "-r", str(lock))
    shutil.copyfile(lock, root / SITE / "locked.txt")
    (root / "etc").mkdir()
    # Some libraries ask for the user's name, and a number alone has none.
    passwd = (base / "etc/passwd").read_text() + "plimsoll:x:65532:65532::/tmp:/usr/sbin/nologin\n"
    (root / "etc/passwd").write_text(passwd)
    (root / "etc/group").write_text((base / "etc/group").read_text() + "plimsoll:x:65532:\n")


def _project() -> tuple[str, Path]:
    key = key_of(_FORMAT, *(CHECKOUT / path for path in PROJECT))
    return key, ensure_layer("project", key, _install_project)


def _install_project(root: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        build = ("-m", "hatchling", "build", "-t", "wheel", "-d", scratch)
        run(uv().parent / "python", *build, cwd=CHECKOUT)
        wheel = next(Path(scratch).glob("*.whl"))
        _uv_install(root, str(wheel))


def _uv_install(root: Path, *what: str) -> None:
    environment = {**os.environ, "UV_LINK_MODE": "hardlink"}
    environment.setdefault("UV_CACHE_DIR", str(cache_directory() / "uv-cache"))
    run(
        uv(), "pip", "install", "--no-deps", "--compile-bytecode", "--python", sys.executable,
        "--target", root / SITE, *what, environment=environment,
    )  # fmt: skip
    # Console scripts would name this machine's Python.
    shutil.rmtree(root / SITE / "bin", ignore_errors=True)
    (root / SITE / ".lock").unlink(missing_ok=True)
