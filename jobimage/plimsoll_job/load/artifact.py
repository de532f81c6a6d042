"""Artifacts from a store: nothing of them is used before every byte has been checked against the digest asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from plimsoll_api.artifact import MANIFEST_FILE, MODEL_FILE, ArtifactManifest, ArtifactRef
from plimsoll_api.model import digest_of
from plimsoll_job.errors import UserError
from plimsoll_job.load.store import Store


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: its manifest and the very bytes that were verified."""

    ref: ArtifactRef
    manifest: ArtifactManifest
    files: Mapping[str, bytes]

    @property
    def graph(self) -> bytes:
        """The ONNX model."""
        return self.files[MODEL_FILE]


def open_artifact(ref: ArtifactRef, store: Store, spec_field: str) -> Artifact:
    """Return the artifact; UserError when a file is missing or differs from what the digest stands for."""
    manifest = open_manifest(ref, store, spec_field)
    files = {}
    for file in manifest.files:
        stored = store.read(f"{ref.uri}/{file.path}", spec_field)
        if len(stored) != file.size_bytes or digest_of(stored) != file.digest:
            raise _damaged(spec_field, f"{file.path} of {ref.uri} differs from its manifest")
        files[file.path] = stored
    if MODEL_FILE not in files:
        raise _damaged(spec_field, f"{ref.uri} holds no {MODEL_FILE}")
    return Artifact(ref, manifest, files)


def open_manifest(ref: ArtifactRef, store: Store, spec_field: str) -> ArtifactManifest:
    """Return the artifact's manifest; UserError when it is not that of the digest."""
    content = store.read(f"{ref.uri}/{MANIFEST_FILE}", spec_field)
    if digest_of(content) != ref.digest:
        raise _damaged(
            spec_field, f"the manifest of {ref.uri} has the digest {digest_of(content)}, expected {ref.digest}"
        )
    try:
        manifest = ArtifactManifest.model_validate_json(content)
    except ValidationError as error:
        raise _damaged(spec_field, f"the manifest of {ref.uri} is not of this version: {error}") from error
    return manifest


def _damaged(spec_field: str, message: str) -> UserError:
    return UserError(f"{spec_field}: {message}", reason="ArtifactDamaged")
