"""Artifacts in a store: artifacts/sha256-<digest of the manifest>/, whole or not there, never changed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import onnx

from plimsoll_api.artifact import (
    CHANGES_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    ArtifactFile,
    ArtifactManifest,
    ArtifactRef,
    Lineage,
    directory_of,
)
from plimsoll_api.model import digest_of
from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import opset, signature
from plimsoll_job.export.reload import DIRECTORY, TORCH_FILE
from plimsoll_job.figures import ModuleFigures
from plimsoll_job.load.artifact import open_artifact
from plimsoll_job.load.store import Store
from plimsoll_job.publish.files import write_directory

OUTPUT_FIELD = "spec.output.uri"
#: What no server of the ONNX model reads.
BESIDE = frozenset({TORCH_FILE, CHANGES_FILE})


def build_manifest(files: Mapping[str, bytes], figures: ModuleFigures, lineage: Lineage) -> ArtifactManifest:
    """Return the manifest of an ONNX model and what lies beside it; nothing in it tells when or where it was made."""
    model = onnx.load_from_string(files[MODEL_FILE])
    inputs, outputs = signature(model)
    return ArtifactManifest(
        opset=opset(model),
        files=[
            ArtifactFile(
                path=path,
                size_bytes=len(content),
                digest=digest_of(content),
                serving=path not in BESIDE and not path.startswith(f"{DIRECTORY}/"),
                code=path == TORCH_FILE,
            )
            for path, content in sorted(files.items())
        ],
        inputs=inputs,
        outputs=outputs,
        parameters=figures.parameters,
        nonzero_parameters=figures.nonzero,
        macs=figures.macs,
        lineage=lineage,
    )


def publish_artifact(
    manifest: ArtifactManifest, files: Mapping[str, bytes], output_uri: str, store: Store
) -> ArtifactRef:
    """Write the artifact where it is not there yet, and return where it lies; a damaged one is written anew."""
    digest = manifest.content_digest()
    name = f"artifacts/{directory_of(digest)}"
    ref = ArtifactRef(uri=f"{output_uri}/{name}", digest=digest, size_bytes=manifest.serving_bytes)
    target = store.locate(output_uri, OUTPUT_FIELD) / name
    if target.exists() and not is_intact(ref, store):
        shutil.rmtree(target, ignore_errors=True)
    write_directory(target, {**files, MANIFEST_FILE: manifest.canonical_json()})
    return ref


def is_intact(ref: ArtifactRef, store: Store) -> bool:
    """Return whether the artifact lies in the store with every byte as its manifest says."""
    try:
        open_artifact(ref, store, OUTPUT_FIELD)
    except UserError:
        return False
    return True
