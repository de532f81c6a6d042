"""Claims are reached by URI, and never left."""

from pathlib import Path

import pytest

from plimsoll_job.errors import UserError
from plimsoll_job.load.store import Store


@pytest.fixture
def two_claims(tmp_path: Path) -> Store:
    (tmp_path / "claims" / "data" / "inner").mkdir(parents=True)
    (tmp_path / "claims" / "data" / "inner" / "file").write_bytes(b"content")
    (tmp_path / "claims" / "data" / "empty.npz").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"mounted")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "claims" / "data" / "link").symlink_to(tmp_path / "secret")
    return Store(claims=tmp_path / "claims", mounts={"models": tmp_path / "elsewhere"})


def test_a_claim_is_a_directory_below_the_mounts(two_claims: Store) -> None:
    assert two_claims.read("pvc://data/inner/file", "f") == b"content"


def test_a_mount_stands_in_for_a_claim(two_claims: Store) -> None:
    assert two_claims.read("pvc://models/file", "f") == b"mounted"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("pvc://data/../../secret", "leads out of its claim"),
        ("pvc://data/link", "leads out of its claim"),
        ("pvc://../secret", "names no claim"),
        ("pvc:///secret", "names no claim"),
        ("pvc://other/file", "'other' is not mounted"),
        ("pvc://data/none", "there is no file"),
        ("pvc://data/inner", "is a directory"),
        ("pvc://data/empty.npz", "there is nothing at pvc://data/empty.npz but an empty folder"),
        ("file:///etc/passwd", "expected pvc://"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_field(two_claims: Store, uri: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        two_claims.read(uri, "spec.some.field")
    assert refused.value.message.startswith("spec.some.field: ")
