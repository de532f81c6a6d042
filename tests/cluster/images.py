"""The images that the cluster runs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from tests.cluster.binaries import tool
from tests.cluster.image_store import Image, ImageStore, Layer
from tests.cluster.layers import prune_layers
from tests.cluster.progress import say
from tests.cluster.project_images import ProjectImage, fast_image
from tests.cluster.runtime import PAUSE_IMAGE
from tests.cluster.settings import Instance

COREDNS_IMAGE = "docker.io/plimsoll/coredns:dev"


def ensure_system(instance: Instance) -> None:
    """Make the images that the cluster itself needs."""
    store = ImageStore(instance.containerd_socket)
    for name, program in ((PAUSE_IMAGE, "pause"), (COREDNS_IMAGE, "coredns")):
        if store.ensure(_single_program(name, tool(program))):
            say(f"image {name} made")


def ensure_project(instance: Instance, which: Iterable[ProjectImage]) -> None:
    """Make the project's images, as the checkout is now, and forget those they replace."""
    store = ImageStore(instance.containerd_socket)
    for image in which:
        if store.ensure(fast_image(image)):
            say(f"image {image.name} made")
    store.prune()
    prune_layers()


def _single_program(name: str, program: Path) -> Image:
    key = hashlib.sha256(program.read_bytes()).hexdigest()

    def write(root: Path, program: Path) -> None:
        shutil.copy(program, root / program.name)

    return Image(name, [Layer(key, partial(write, program=program))], {"Entrypoint": [f"/{program.name}"]})
