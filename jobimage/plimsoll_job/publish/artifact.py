"""Artifacts in a store: artifacts/sha256-<digest of the manifest>/, whole or not there, never changed."""

from __future__ import annotations

import shutil
from pathlib import Path

from plimsoll_api.artifact import (
    CHANGES_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    ArtifactFile,
    ArtifactManifest,
    ArtifactRef,
    ClassNames,
    Lineage,
    directory_of,
)
from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import opset, signature
from plimsoll_job.export.integers import required_features
from plimsoll_job.export.lean import read_lean
from plimsoll_job.export.reload import DIRECTORY, TORCH_FILE
from plimsoll_job.figures import ModuleFigures
from plimsoll_job.load.artifact import open_manifest
from plimsoll_job.load.store import Store
from plimsoll_job.publish.files import digest_of_file, write_directory

OUTPUT_FIELD = "spec.output.uri"
#: What no server of the ONNX model reads.
BESIDE = frozenset({TORCH_FILE, CHANGES_FILE})


def build_manifest(
    directory: Path, figures: ModuleFigures, lineage: Lineage, classes: ClassNames | None = None
) -> ArtifactManifest:
    """Return the manifest of the directory's model and what lies beside it; nothing tells when or where it was made."""
    model = read_lean(directory / MODEL_FILE)
    inputs, outputs = signature(model.proto)
    return ArtifactManifest(
        opset=opset(model.proto),
        files=[
            ArtifactFile(
                path=path,
                size_bytes=file.stat().st_size,
                digest=digest_of_file(file),
                serving=path not in BESIDE and not path.startswith(f"{DIRECTORY}/"),
                code=path == TORCH_FILE,
            )
            for path, file in sorted(_files(directory).items())
        ],
        inputs=inputs,
        outputs=outputs,
        parameters=figures.parameters,
        nonzero_parameters=figures.nonzero,
        macs=figures.macs,
        macs_unknown=figures.macs_unknown,
        requires=required_features(model),
        classes=classes,
        lineage=lineage,
    )


def publish_artifact(manifest: ArtifactManifest, directory: Path, output_uri: str, store: Store) -> ArtifactRef:
    """Copy the directory's files where it is not there yet, and return where it lies; a damaged one is written anew."""
    digest = manifest.content_digest()
    name = f"artifacts/{directory_of(digest)}"
    ref = ArtifactRef(
        uri=f"{output_uri}/{name}", digest=digest, size_bytes=manifest.serving_bytes, requires=manifest.requires
    )
    target = store.locate(output_uri, OUTPUT_FIELD) / name
    if target.exists() and not is_intact(ref, store):
        shutil.rmtree(target, ignore_errors=True)
    write_directory(target, {**_files(directory), MANIFEST_FILE: manifest.canonical_json()})
    return ref


def is_intact(ref: ArtifactRef, store: Store) -> bool:
    """Return whether the artifact lies in the store with every byte as its manifest says."""
    try:
        manifest = open_manifest(ref, store, OUTPUT_FIELD)
        paths = [(file, store.locate(f"{ref.uri}/{file.path}", OUTPUT_FIELD)) for file in manifest.files]
        return all(digest_of_file(path) == file.digest for file, path in paths)
    except (UserError, OSError):
        return False


def _files(directory: Path) -> dict[str, Path]:
    return {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
