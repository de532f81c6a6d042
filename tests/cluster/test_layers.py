"""A layer's key changes with what the layer is made from, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cluster.inventory import take_inventory
from tests.cluster.layers import ensure_layer, key_of


def test_the_key_follows_content_and_names(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1")
    first = key_of(package)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_text("x")
    assert key_of(package) == first
    (package / "a.py").rename(package / "b.py")
    renamed = key_of(package)
    (package / "b.py").write_text("2")
    assert len({first, renamed, key_of(package)}) == 3


def test_an_interrupted_layer_is_not_taken_for_a_finished_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLIMSOLL_CACHE", str(tmp_path))

    def broken(root: Path) -> None:
        (root / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_layer("test", "key", broken)
    folder = ensure_layer("test", "key", lambda root: None)
    assert not list(folder.iterdir())
    assert ensure_layer("test", "key", broken) == folder
    assert [entry.name for entry in (tmp_path / "layers").iterdir()] == ["test-key"]


def test_the_inventory_names_packages_and_project_files(tmp_path: Path) -> None:
    information = tmp_path / "Thing-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: Thing\nVersion: 1.0\n")
    (tmp_path / "plimsoll_x").mkdir()
    (tmp_path / "plimsoll_x" / "a.py").write_text("")
    found = take_inventory([str(tmp_path)])
    assert found["packages"] == {"thing": "1.0"}
    assert list(found["files"]) == ["plimsoll_x/a.py"]
