"""Versions of the packages that made or measured something."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from plimsoll_api.sources import Architecture

#: One of them is installed, by the platform.
SERVING_RUNTIME = ("onnxruntime", "onnxruntime-gpu")
#: What makes every artifact.
ENGINE = ("torch", "torch-pruning", "onnx", *SERVING_RUNTIME, "numpy")
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


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
