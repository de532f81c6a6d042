"""What the datasets library writes to disk is read without it, bytes and all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_wine

from plimsoll_api.data import DataSource
from plimsoll_job.errors import UserError
from plimsoll_job.load.data import Samples, read_samples
from plimsoll_job.load.labels import class_numbers
from plimsoll_job.load.store import Store

os.environ["HF_HUB_OFFLINE"] = "1"
WINE = load_wine()
DIGITS = (load_digits().images[:20] * 15).astype(np.uint8)


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wines in two shards with the names of their classes, a group of splits, digits with embedded images."""
    import datasets  # noqa: PLC0415 — seven seconds, needed here only

    datasets.disable_progress_bars()
    directory = tmp_path_factory.mktemp("claims")
    features = datasets.Features(
        {
            "row": datasets.List(datasets.Value("float32")),
            "grid": datasets.Array2D((2, 2), "float32"),
            "labels": datasets.ClassLabel(names=["barolo", "grignolino", "barbera"]),
            "note": datasets.Value("string"),
        }
    )
    columns = {"row": WINE.data.tolist(), "labels": WINE.target.tolist(), "note": [f"wine {n}" for n in range(178)]}
    wines = datasets.Dataset.from_dict(columns | {"grid": WINE.data[:, :4].reshape(-1, 2, 2).tolist()}, features)
    wines.save_to_disk(directory / "data" / "wines", num_shards=2)
    datasets.DatasetDict({"test": wines}).save_to_disk(directory / "data" / "group")
    labels = load_digits().target[:20].tolist()
    images = datasets.Dataset.from_dict({"image": [Image.fromarray(one) for one in DIGITS], "labels": labels})
    images.save_to_disk(directory / "data" / "digits")
    return directory


def read(claims: Path, name: str, **source: Any) -> Samples:
    given = DataSource.model_validate({"uri": f"pvc://data/{name}", **source})
    return read_samples(given, Store(claims=claims), "f", class_numbers, columns=source.pop("columns", ()))


def test_columns_are_those_that_were_written(claims: Path) -> None:
    found = read(claims, "wines", inputs=["row"])
    assert np.array_equal(found.inputs["inputs"], WINE.data.astype(np.float32))
    assert found.labels is not None
    assert found.labels.tolist() == WINE.target.tolist()
    grid = read(claims, "wines", inputs=["grid"]).inputs["inputs"]
    assert np.array_equal(grid, WINE.data[:, :4].reshape(-1, 2, 2).astype(np.float32))


def test_images_are_decoded_as_the_source_says(claims: Path) -> None:
    settings = {"mode": "Grayscale", "resize": 8, "crop": 8}
    found = read(claims, "digits", inputs=["image"], images=settings).inputs["inputs"]
    assert np.allclose(found, DIGITS[:, None] / 255, atol=1e-6)
    with pytest.raises(UserError, match=r"f.images: pvc://data/wines has no column of images"):
        read(claims, "wines", inputs=["row"], images=settings)


def test_labels_of_a_data_set_are_the_names_of_its_classes(claims: Path) -> None:
    """Its numbers are of an order of its own, which need not be that of the model's outputs."""
    assert "barolo" in (claims / "data" / "wines" / "dataset_info.json").read_text()
    found = read(claims, "wines", inputs=["row"])
    assert list(found.classes) == ["barolo", "grignolino", "barbera"]
    turned = read(claims, "wines", inputs=["row"], classes=["barbera", "grignolino", "barolo"])
    assert found.labels is not None
    assert turned.labels is not None
    assert turned.labels.tolist() == (2 - found.labels).tolist()
    with pytest.raises(UserError, match=r"f.classes: has no 'barbera', 'barolo', 'grignolino', which f.labels has"):
        read(claims, "wines", inputs=["row"], classes=["a", "b"])


def test_a_group_of_splits_says_which_to_name(claims: Path) -> None:
    with pytest.raises(UserError, match=r"f.uri: .* is a group of data sets; name one .* pvc://data/group/test"):
        read(claims, "group", inputs=["row"])
    assert len(read(claims, "group/test", inputs=["row"])) == 178


def test_one_byte_more_changes_the_digest_and_torn_files_are_refused(claims: Path) -> None:
    first = read(claims, "wines", inputs=["row"])
    file = next((claims / "data" / "wines").glob("data-00001*.arrow"))
    whole = file.read_bytes()
    try:
        file.write_bytes(whole.replace(b"wine 177", b"wine 178"))
        changed = read(claims, "wines", inputs=["row"])
        assert changed.digest != first.digest
        for length in [*range(0, len(whole) - 16, len(whole) // 20), len(whole) - 8]:
            file.write_bytes(whole[:length])
            with pytest.raises(UserError, match=r"f.uri: pvc://data/wines is not a whole Arrow file"):
                read(claims, "wines", inputs=["row"])
        file.unlink()
        with pytest.raises(UserError, match=r"f.uri: there is no file"):
            read(claims, "wines", inputs=["row"])
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"_data_files": [{}]}', '{"_data_files": 3}'])
def test_a_state_that_is_none_is_refused(claims: Path, tmp_path: Path, content: str) -> None:
    broken = tmp_path / "data" / "broken"
    broken.mkdir(parents=True)
    (broken / "dataset_info.json").write_text("{}")
    (broken / "state.json").write_text(content)
    with pytest.raises(UserError, match=r"f.uri: pvc://data/broken"):
        read(tmp_path, "broken", inputs=["row"])


def test_a_state_cannot_lead_out_of_the_claim(claims: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data" / "broken"
    broken.mkdir(parents=True)
    (broken / "dataset_info.json").write_text("{}")
    (broken / "state.json").write_text('{"_data_files": [{"filename": "../../../etc/passwd"}]}')
    with pytest.raises(UserError, match="leads out of its claim"):
        read(tmp_path, "broken", inputs=["row"])


def test_neither_torch_nor_the_library_is_imported(claims: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from plimsoll_api.data import DataSource;"
        "from plimsoll_job.load.data import read_samples; from plimsoll_job.load.store import Store;"
        "read_samples(DataSource(uri='pvc://data/wines', inputs=['row']), Store(claims=Path(sys.argv[1])), 'f', None);"
        "assert not {'torch', 'datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(claims)], check=True)
