"""Claims as a pod mounts them: each path alone, read-only unless it is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from plimsoll_api import names
from plimsoll_operator.cluster.resources import Json

SCHEME = "pvc://"


@dataclass(frozen=True, slots=True, order=True)
class ClaimPath:
    """A path in a PersistentVolumeClaim; the claim's root when the path is empty."""

    claim: str
    path: str = ""

    @classmethod
    def parse(cls, uri: str) -> ClaimPath:
        """Return the path that a `pvc://claim/path` URI names, or raise ValueError."""
        if not uri.startswith(SCHEME):
            raise ValueError(f"{uri}: only {SCHEME} is mounted")
        claim, _, path = uri.removeprefix(SCHEME).partition("/")
        if any(part in (".", "..") for part in path.split("/")):
            raise ValueError(f"{uri}: a path in a claim has no . or .. in it")
        return cls(claim, "/".join(part for part in path.split("/") if part))

    def holds(self, other: ClaimPath) -> bool:
        """Say whether the other path is this one or lies below it."""
        below = not self.path or self.path == other.path or other.path.startswith(f"{self.path}/")
        return self.claim == other.claim and below


def volumes_of(read: Iterable[str], written: Iterable[str]) -> tuple[list[Json], list[Json]]:
    """Return the volumes and the volume mounts for these URIs.

    One volume a claim, since a pod that names a claim in two volumes never starts (kubernetes/kubernetes#82526). The
    volume is read-only as a whole when nothing of the claim is written: the kubelet then refuses a path that is not
    there, where otherwise it would make an empty folder in its place.
    """
    writable = _outermost({ClaimPath.parse(uri) for uri in written})
    readable = _outermost({ClaimPath.parse(uri) for uri in read} - writable)
    claims = sorted({path.claim for path in writable | readable})
    volume_names = {claim: f"claim-{number}" for number, claim in enumerate(claims)}
    volumes: list[Json] = []
    for claim in claims:
        source: Json = {"claimName": claim}
        if not any(path.claim == claim for path in writable):
            source["readOnly"] = True
        volumes.append({"name": volume_names[claim], "persistentVolumeClaim": source})
    mounts = [
        _mount(path, volume_names[path.claim], read_only=path in readable) for path in sorted(writable | readable)
    ]
    return volumes, mounts


def _outermost(paths: set[ClaimPath]) -> set[ClaimPath]:
    return {path for path in paths if not any(other != path and other.holds(path) for other in paths)}


def _mount(path: ClaimPath, volume: str, *, read_only: bool) -> Json:
    below = f"{path.claim}/{path.path}" if path.path else path.claim
    mount: Json = {"name": volume, "mountPath": f"{names.CLAIMS_DIRECTORY}/{below}"}
    if path.path:
        mount["subPath"] = path.path
    if read_only:
        mount["readOnly"] = True
    return mount
