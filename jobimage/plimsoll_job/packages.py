"""Versions of the packages that made or measured something."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from plimsoll_api.sources import Architecture

#: One of them is installed, by the platform.
SERVING_RUNTIME = ("onnxruntime", "onnxruntime-gpu")
#: What makes every artifact.
ENGINE = ("torch", "onnx", *SERVING_RUNTIME, "numpy")
#: What builds the modules of each kind of architecture besides; a factory is code of the image.
BUILDERS = {
    "factory": (),
    "torchvision": ("torchvision",),
    "timm": ("timm", "torchvision"),
    "huggingface": ("transformers", "tokenizers"),
    "onnx": (),
}


def engine_versions(architectures: Iterable[Architecture]) -> dict[str, str]:
    """Return the versions of what compresses models, and of what builds modules of these architectures."""
    builders = {
        package
        for one in architectures
        for kind, packages in BUILDERS.items()
        if getattr(one, kind)
        for package in packages
    }
    return package_versions([*ENGINE, *sorted(builders)])


def runtime_build() -> str:
    """Return the package, version and commit of the ONNX Runtime that serves here."""
    # The operator's image and the command line have no runtime.
    import onnxruntime  # noqa: PLC0415

    commit = re.search(r"git-commit-id=(\w+)", onnxruntime.get_build_info())
    packages = " ".join(f"{name} {number}" for name, number in package_versions(SERVING_RUNTIME).items())
    return f"{packages} ({commit.group(1)})" if commit else packages


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
