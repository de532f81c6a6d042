"""Images written straight into containerd: no registry, no archive, no copy of what is already on the disk.

containerd finds the files of an image by the chain of its layers' digests. Here a layer's digest is made from what
goes into the layer (its key) rather than from an archive of it, and its files are written into the snapshot of that
name. The layer's blob is a placeholder: it would be unpacked only if the snapshot were missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.commands import run, succeeds
from tests.cluster.errors import ClusterError

_OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Layer:
    """Files of an image. `key` says what they are made from: equal keys, equal files."""

    key: str
    write: Callable[[Path], None]
    """Writes the layer's files below the given folder."""


@dataclass(frozen=True)
class Image:
    """An image to be: its name, its layers from the bottom, and the `config` part of its OCI configuration."""

    name: str
    layers: Sequence[Layer]
    config: dict[str, Any]


class ImageStore:
    """The images in one containerd."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def ensure(self, image: Image) -> bool:
        """Make the image's name mean exactly this content; return whether anything had to be done."""
        digests = [_digest(f"plimsoll layer {layer.key}".encode()) for layer in image.layers]
        chains = _chains(digests)
        blobs: dict[str, bytes] = {}
        config, manifest, index = _describe(image, digests, blobs)
        if self._target(image.name) == manifest and self._has_snapshot(chains[-1]):
            return False
        for layer, chain, below in zip(image.layers, chains, ["", *chains], strict=False):
            if not self._has_snapshot(chain):
                self._write(layer, chain, below)
        self._ctr("images", "import", "--no-unpack", "-", stdin=_archive(index, blobs))
        self._ctr("content", "label", config, f"containerd.io/gc.ref.snapshot.overlayfs={chains[-1]}")
        for chain in chains:
            # ctr holds what it commits for ever; from here on the image holds it.
            self._ctr("snapshots", "label", chain, "containerd.io/gc.root=")
        return True

    def prune(self) -> None:
        """Forget the images that have lost their name to a newer one; containerd then frees their files."""
        targets = self._targets()
        named = {target for name, target in targets.items() if not name.startswith("sha256:")}
        lost = [name for name, target in targets.items() if target not in named]
        if lost:
            self._ctr("images", "rm", "--sync", *lost)

    def _ctr(self, *arguments: str, stdin: bytes | None = None) -> str:
        return run("ctr", "-a", self._socket, "-n", "k8s.io", *arguments, stdin=stdin)

    def _targets(self) -> dict[str, str]:
        lines = self._ctr("images", "ls").splitlines()[1:]
        return {words[0]: words[2] for words in (line.split() for line in lines)}

    def _target(self, name: str) -> str | None:
        return self._targets().get(name)

    def _has_snapshot(self, chain: str) -> bool:
        return succeeds("ctr", "-a", self._socket, "-n", "k8s.io", "snapshots", "info", chain)

    def _write(self, layer: Layer, chain: str, below: str) -> None:
        scratch = f"build-{chain[7:19]}"
        succeeds("ctr", "-a", self._socket, "-n", "k8s.io", "snapshots", "rm", scratch)  # of an interrupted build
        self._ctr("snapshots", "prepare", scratch, *([below] if below else []))
        try:
            layer.write(_upper(self._ctr("snapshots", "mounts", "/unused", scratch)))
            self._ctr("snapshots", "commit", chain, scratch)
        except BaseException:
            self._ctr("snapshots", "rm", scratch)
            raise


def _upper(mount: str) -> Path:
    if "upperdir=" in mount:
        return Path(mount.split("upperdir=")[1].split(",", maxsplit=1)[0].split(maxsplit=1)[0])
    found = next((word for word in mount.split() if word.endswith("/fs")), None)
    if found is None:
        raise ClusterError(f"containerd's snapshotter is not overlayfs: {mount}")
    return Path(found)


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _chains(digests: Sequence[str]) -> list[str]:
    chains = [digests[0]]
    for digest in digests[1:]:
        chains.append(_digest(f"{chains[-1]} {digest}".encode()))
    return chains


def _describe(image: Image, digests: Sequence[str], blobs: dict[str, bytes]) -> tuple[str, str, bytes]:
    """Put the image's blobs into `blobs`; return the digests of its configuration and manifest, and its index."""

    def put(kind: str, content: bytes, **extra: object) -> dict[str, object]:
        blobs[_digest(content)] = content
        return {"mediaType": f"{_OCI}.{kind}", "digest": _digest(content), "size": len(content), **extra}

    def encode(document: dict[str, Any]) -> bytes:
        return json.dumps(document, sort_keys=True).encode()

    platform = {"os": "linux", "architecture": _architecture()}
    config = encode({**platform, "config": image.config, "rootfs": {"type": "layers", "diff_ids": list(digests)}})
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": put("config.v1+json", config),
        "layers": [put("layer.v1.tar", f"in the snapshot of {digest}".encode()) for digest in digests],
    }
    name = {"io.containerd.image.name": image.name}
    described = put("manifest.v1+json", encode(manifest), platform=platform, annotations=name)
    index = encode({"schemaVersion": 2, "manifests": [described]})
    return _digest(config), str(described["digest"]), index


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def _archive(index: bytes, blobs: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    files |= {f"blobs/sha256/{digest[7:]}": content for digest, content in blobs.items()}
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()
