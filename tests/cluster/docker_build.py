"""The shipped Dockerfiles, really built, once for each state of what goes into them.

As a command: python -m tests.cluster.docker_build
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.cluster import inventory
from tests.cluster.base_root import CERTIFICATES, ensure_base
from tests.cluster.docker import Docker, docker_daemon
from tests.cluster.errors import ClusterError
from tests.cluster.layers import copy_linked, ensure_layer, key_of
from tests.cluster.progress import say
from tests.cluster.project_images import CHECKOUT, PROJECT, PROJECT_IMAGES, SITE, ProjectImage, uv
from tests.cluster.settings import cache_directory

_CONTEXT = (".dockerignore", "locks/build.txt", *PROJECT)
_MODULES = {"plimsoll_operator": "kopf, kubernetes, prometheus_client", "plimsoll_job": "torch, onnxruntime, pyarrow"}


def built_contents(images: Iterable[ProjectImage] = PROJECT_IMAGES) -> dict[str, dict[str, Any]]:
    """Build with docker those images whose sources have changed; return what each holds, by module name.

    An image's content is that of `inventory`, and under `user` who its program runs as.
    """
    wanted = {image: _record(image) for image in images}
    missing = [image for image, record in wanted.items() if not record.exists()]
    if missing:
        with docker_daemon() as docker:
            arguments = _load_bases(docker)
            for image in missing:
                _build(docker, image, arguments, wanted[image])
            _prune(docker, wanted.values())
    return {image.module: json.loads(record.read_text()) for image, record in wanted.items()}


def _record(image: ProjectImage) -> Path:
    base, _ = ensure_base()
    key = key_of(base, *(CHECKOUT / path for path in (image.dockerfile, image.lock, *_CONTEXT)))
    return cache_directory() / "docker-builds" / f"{image.module}-{key[:16]}.json"


def _load_bases(docker: Docker) -> dict[str, str]:
    """Give the daemon the two base images; return the build arguments that name them."""
    key, root = ensure_base()
    # pip, for the tools' stage alone, as in the difference between python:3.11-slim and python:3.11.
    with_pip = ensure_layer("base-with-pip", key_of(key, "pip"), lambda target: _add_pip(root, target))
    names = {"BASE_IMAGE": f"plimsoll-base:{key[:16]}", "BUILD_IMAGE": f"plimsoll-build:{key[:16]}"}
    trust = {"SSL_CERT_FILE": CERTIFICATES, "PIP_CERT": CERTIFICATES}
    docker.load_base(names["BASE_IMAGE"], root, {"SSL_CERT_FILE": CERTIFICATES})
    docker.load_base(names["BUILD_IMAGE"], with_pip, trust)
    proxies = {name: value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy")}
    return names | proxies


def _add_pip(base: Path, target: Path) -> None:
    target.rmdir()
    copy_linked(base, target)
    libraries = uv().parent.parent / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    copy_linked(libraries / "site-packages" / "pip", target / "usr/lib/python3/dist-packages/pip")


def _build(docker: Docker, image: ProjectImage, arguments: dict[str, str], record: Path) -> None:
    say(f"docker build of {image.dockerfile}")
    docker.build(image.name, CHECKOUT, image.dockerfile, arguments)
    say(f"docker build of {image.dockerfile}: done")
    # The container is run as a cluster would: with a read-only root, and nothing but /tmp to write to.
    run = ("run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--entrypoint", "python3", image.name)
    content = json.loads(docker.run(*run, "-c", Path(inventory.__file__).read_text(), f"/{SITE}"))
    checks = f"import os, {_MODULES[image.module]}, {image.module}; print(os.getuid(), os.getgid())"
    content["user"] = docker.run(*run, "-c", checks).strip()
    if _record(image) != record:
        raise ClusterError(f"the sources of {image.name} changed while docker built it: run it again")
    record.parent.mkdir(parents=True, exist_ok=True)
    scratch = record.with_suffix(".tmp")
    scratch.write_text(json.dumps(content, indent=1))
    scratch.rename(record)
    say(f"looked into {image.name}")


def _prune(docker: Docker, current: Iterable[Path]) -> None:
    """Free the disk of images that have lost their name, of old build steps and of their records."""
    docker.run("image", "prune", "--force")
    docker.run("builder", "prune", "--force", "--filter", "until=72h")
    kept = {record.name for record in current}
    for record in (cache_directory() / "docker-builds").glob("*.json"):
        if record.name not in kept:
            record.unlink()


if __name__ == "__main__":
    try:
        for module, content in built_contents().items():
            print(f"{module}: {len(content['packages'])} packages, runs as {content['user']}")
    except ClusterError as error:
        sys.exit(f"error: {error}")
