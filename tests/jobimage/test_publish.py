"""Artifacts appear whole or not at all, are stored once, and mend when damaged."""

import os
import tempfile
import threading
from pathlib import Path

import pytest
from tests.jobimage.claims import Claims

from plimsoll_api.artifact import ArtifactRef, Lineage
from plimsoll_api.model import digest_of
from plimsoll_job.errors import TransientError, UserError
from plimsoll_job.export.onnx_export import export_onnx
from plimsoll_job.figures import count
from plimsoll_job.load.artifact import open_artifact
from plimsoll_job.load.inputs import single
from plimsoll_job.load.store import Store
from plimsoll_job.publish.artifact import build_manifest, is_intact, publish_artifact
from plimsoll_job.publish.files import write_directory, write_file
from plimsoll_job.publish.report import publish_report, read_report
from plimsoll_job.zoo import wine_mlp

LINEAGE = Lineage(source_digest="sha256:" + "0" * 64, architecture="plimsoll_job.zoo:wine_mlp")


def publish(store: Store) -> ArtifactRef:
    module = wine_mlp().eval()
    for parameter in module.parameters():
        parameter.detach().fill_(0.25)
    with tempfile.TemporaryDirectory() as directory:
        files = Path(directory)
        export_onnx(module, single((13,)), files / "model.onnx")
        manifest = build_manifest(files, count(module, single((13,))), LINEAGE)
        return publish_artifact(manifest, files, "pvc://out/wine", store)


def path_of(claims: Claims, ref: ArtifactRef) -> Path:
    return claims.directory / ref.uri.removeprefix("pvc://")


def test_an_artifact_is_named_by_the_digest_of_its_manifest(claims: Claims, store: Store) -> None:
    ref = publish(store)
    manifest = (path_of(claims, ref) / "manifest.json").read_bytes()
    assert digest_of(manifest) == ref.digest
    assert ref.uri == f"pvc://out/wine/artifacts/{ref.digest.replace(':', '-')}"
    assert ref.size_bytes == (path_of(claims, ref) / "model.onnx").stat().st_size
    artifact = open_artifact(ref, store, "f")
    assert artifact.manifest.inputs[0].shape == [None, 13]
    assert artifact.manifest.parameters == 6 * 13 - 52 + 13 * 64 + 64 + 64 * 64 + 64 + 64 * 3 + 3


def test_publishing_again_changes_nothing(claims: Claims, store: Store) -> None:
    ref = publish(store)
    before = (path_of(claims, ref) / "model.onnx").stat()
    assert publish(store) == ref
    after = (path_of(claims, ref) / "model.onnx").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [path.name for path in path_of(claims, ref).parent.iterdir()] == [path_of(claims, ref).name]


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_one_changed_byte_is_noticed_and_mended(claims: Claims, store: Store, name: str) -> None:
    ref = publish(store)
    file = path_of(claims, ref) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(UserError) as error:
        open_artifact(ref, store, "f")
    assert error.value.reason == "ArtifactDamaged"
    assert publish(store) == ref
    assert is_intact(ref, store)


def test_a_missing_file_is_noticed_and_mended(claims: Claims, store: Store) -> None:
    ref = publish(store)
    (path_of(claims, ref) / "model.onnx").unlink()
    assert not is_intact(ref, store)
    publish(store)
    assert is_intact(ref, store)


def test_a_path_in_a_manifest_cannot_leave_the_claim(claims: Claims, store: Store) -> None:
    (claims.directory / "secret").write_bytes(b"secret")
    ref = publish(store)
    manifest = open_artifact(ref, store, "f").manifest
    outside = manifest.files[0].model_copy(update={"path": "../../../../secret", "digest": digest_of(b"secret")})
    wrong = manifest.model_copy(update={"files": [outside]})
    (path_of(claims, ref) / "manifest.json").write_bytes(wrong.canonical_json())
    with pytest.raises(UserError, match="leads out of its claim"):
        open_artifact(ref.model_copy(update={"digest": wrong.content_digest()}), store, "f")


def test_of_many_writers_one_is_first_and_all_succeed(tmp_path: Path) -> None:
    target = tmp_path / "artifacts" / "one"
    threads = [threading.Thread(target=write_directory, args=(target, {"file": b"x" * 10_000})) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (target / "file").read_bytes() == b"x" * 10_000
    assert [path.name for path in target.parent.iterdir()] == ["one"]


def test_a_store_that_may_not_be_written_is_no_fault_that_waiting_mends() -> None:
    # Nobody may make a folder there, root neither.
    with pytest.raises(UserError, match=r"^spec\.output\.uri: artifacts may not be written there: ") as error:
        write_directory(Path("/sys/artifacts"), {"file": b""})
    assert error.value.reason == "StoreReadOnly"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TransientError, match="No space left on device"):
        write_directory(tmp_path / "d", {"f": b"1"})
    with pytest.raises(TransientError, match="No space left on device"):
        write_file(tmp_path / "f", b"1")
    assert list(tmp_path.iterdir()) == []


def test_everyone_may_read_what_is_published(claims: Claims, store: Store) -> None:
    path = path_of(claims, publish(store))
    assert path.stat().st_mode & 0o777 == 0o755
    assert (path / "model.onnx").stat().st_mode & 0o777 == 0o644


def test_reports_are_read_back_by_digest(claims: Claims, store: Store) -> None:
    content = b'{"report": 1}'
    uri = publish_report(content, "pvc://out/wine", store)
    assert read_report(uri, digest_of(content), store) == content
    with pytest.raises(UserError, match="has the digest"):
        read_report(uri, digest_of(b"other"), store)
