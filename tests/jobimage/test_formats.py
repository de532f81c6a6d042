"""CSV, JSON lines and folders of images are read as the same samples that a .npz file of them gives."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits, load_wine
from torchvision import transforms

from plimsoll_api.data import DataSource
from plimsoll_api.images import Images
from plimsoll_job.errors import UserError
from plimsoll_job.load.data import Samples, read_samples
from plimsoll_job.load.images import decode_image
from plimsoll_job.load.labels import class_numbers
from plimsoll_job.load.store import Store

FIELD = "spec.data.evaluation"
AS_STORED = {"mode": "Grayscale", "resize": 8, "crop": 8}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def read(data: Path, name: str, columns: list[str] | None = None, **source: Any) -> Samples:
    given = DataSource.model_validate({"uri": f"pvc://data/{name}", **source})
    return read_samples(given, Store(claims=data.parent), FIELD, class_numbers, columns=columns or [])


def refused(data: Path, name: str, **source: Any) -> str:
    with pytest.raises(UserError) as error:
        read(data, name, **source)
    return error.value.message


# --- CSV and JSON lines: the wines


@pytest.fixture
def wines(data: Path) -> Path:
    """The wines as wines.npz, wines.csv and wines.jsonl, with the names of their classes."""
    wine = load_wine()
    names = [str(wine.target_names[number]) for number in wine.target]
    columns = {"alcohol": wine.data[:, 0], "hue": wine.data[:, 10], "labels": wine.target, "kind": np.array(names)}
    np.savez(data / "wines.npz", **columns)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
    with (data / "wines.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)
    (data / "wines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data


@pytest.mark.parametrize("name", ["wines.csv", "wines.jsonl"])
def test_rows_of_text_are_the_samples_of_the_arrays(wines: Path, name: str) -> None:
    inputs = ["hue", "alcohol"]
    arrays, rows = (read(wines, one, ["kind"], inputs=inputs) for one in ("wines.npz", name))
    assert np.array_equal(rows.inputs["inputs"], arrays.inputs["inputs"])
    assert rows.inputs["inputs"].shape == (178, 2)
    assert rows.labels is not None
    assert rows.labels.tolist() == load_wine().target.tolist()
    assert rows.columns["kind"].tolist() == arrays.columns["kind"].tolist()
    assert len({arrays.digest, rows.digest}) == 2


@pytest.mark.parametrize("name", ["wines.npz", "wines.csv", "wines.jsonl"])
def test_labels_may_be_the_names_of_classes(wines: Path, name: str) -> None:
    source: dict[str, Any] = {"inputs": ["hue"], "labels": "kind"}
    found = read(wines, name, **source, classes=["class_2", "class_1", "class_0"])
    assert found.labels is not None
    assert found.labels.tolist() == (2 - load_wine().target).tolist()
    assert refused(wines, name, **source) == (
        f"{FIELD}.classes: the labels are names such as 'class_0'; list the classes in the order of the model's outputs"
    )
    assert refused(wines, name, **source, classes=["class_0", "class_1"]).startswith(
        f"{FIELD}.classes: has no 'class_2'"
    )


def test_numbers_beyond_the_named_classes_are_refused(wines: Path) -> None:
    assert "label 2 is beyond the 2 names" in refused(wines, "wines.csv", inputs=["hue"], classes=["a", "b"])


def test_json_lines_hold_lists_of_numbers(data: Path) -> None:
    (data / "set.jsonl").write_text('{"inputs": [[1, 2.5]], "labels": 0}\n{"inputs": [[3, 4]], "labels": 1}\n')
    assert read(data, "set.jsonl").inputs["inputs"].tolist() == [[[1, 2.5]], [[3, 4]]]


def test_a_type_is_inferred_from_all_rows(data: Path) -> None:
    """Arrow reads blocks of a megabyte and keeps the first one's types; a float far below must not tear the file."""
    rows = "".join(f"{number},{number % 2}\n" for number in range(200_000))
    (data / "set.csv").write_text(f"inputs,labels\n{rows}0.5,1\n")
    assert read(data, "set.csv").inputs["inputs"][-1] == 0.5
    lines = "".join(json.dumps({"inputs": number, "labels": 0}) + "\n" for number in range(50_000))
    (data / "set.jsonl").write_text(lines + '{"inputs": 0.5, "labels": 1}\n')
    assert read(data, "set.jsonl").inputs["inputs"][-1] == 0.5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("set.csv", "inputs,labels\n1,0\n2\n", "uri: .* is not a whole .csv file"),
        ("set.csv", "inputs,labels\n1,0\n,1\n", "the column 'inputs' has 1 empty entries"),
        ("set.csv", "inputs,labels,labels\n1,0,0\n", "uri: .* has 2 columns named 'labels'"),
        ("set.csv", "inputs,labels\n1,0\ntwo,1\n", "inputs: 'inputs' holds .*, expected numbers"),
        ("set.csv", "", "uri: .* is not a whole .csv file"),
        ("set.csv", "inputs,labels\n", "inputs: "),
        ("set.csv", "1,0\n2,1\n", "inputs: .* has no array or column 'inputs'"),
        ("set.jsonl", '{"inputs": 1, "labels": 0}\n{"inputs": 2', "uri: .* is not a whole .jsonl file"),
        ("set.jsonl", '{"inputs": 1, "labels": 0}\n{"inputs": "a", "labels": 0}\n', "is not a whole .jsonl file"),
        ("set.jsonl", '{"inputs": [1], "labels": 0}\n{"inputs": [1, 2], "labels": 0}\n', "not all of one length"),
        ("set.jsonl", '[{"inputs": 1, "labels": 0}]', "uri: .* is not a whole .jsonl file"),
        ("set.jsonl", "", "uri: .* is not a whole .jsonl file"),
    ],
)
def test_wrong_rows_name_their_field(data: Path, name: str, content: str, message: str) -> None:
    (data / name).write_text(content)
    with pytest.raises(UserError, match=rf"spec.data.evaluation[.:].*{message.removeprefix('uri: ')}"):
        read(data, name)


# --- folders of images: the digits


@pytest.fixture
def digits(data: Path) -> tuple[Path, NDArray[Any], NDArray[Any]]:
    """A hundred digits as PNG files, one folder a digit, and their pixels and labels in the order of the paths."""
    images, labels = load_digits(return_X_y=True)
    order = sorted(range(100), key=lambda number: (labels[number], number))
    for number in order:
        folder = data / "digits" / str(labels[number])
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (images[number].reshape(8, 8) * 15).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return data, images[order].reshape(-1, 1, 8, 8) * 15 / 255, labels[order]


def test_a_folder_of_digits_is_their_pixels_and_labels(digits: tuple[Path, NDArray[Any], NDArray[Any]]) -> None:
    data, pixels, labels = digits
    found = read(data, "digits", ["file"], images=AS_STORED)
    assert found.inputs["inputs"].dtype == np.float32
    assert np.allclose(found.inputs["inputs"], pixels, atol=1e-6)
    assert found.labels is not None
    assert found.labels.tolist() == labels.tolist()
    assert found.columns["file"][0] == "0/000.png"
    assert refused(data, "digits", images=AS_STORED, classes=list("12345678")).startswith(
        f"{FIELD}.classes: has no '0', '9'"
    )


def test_the_digest_of_a_folder_is_of_names_and_bytes(digits: tuple[Path, NDArray[Any], NDArray[Any]]) -> None:
    data = digits[0]
    first = read(data, "digits").digest
    (data / "digits" / ".DS_Store").write_bytes(b"junk of a desktop")
    assert read(data, "digits", images=AS_STORED).digest == first
    file = next((data / "digits" / "3").iterdir())
    content = file.read_bytes()
    moved = file.rename(data / "digits" / "4" / file.name)
    assert read(data, "digits").digest != first
    file.write_bytes(content)
    moved.unlink()
    assert read(data, "digits").digest == first
    Image.new("L", (8, 8)).save(file)
    assert read(data, "digits").digest != first


def test_an_image_is_prepared_as_torchvision_prepares_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 75, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    for name, way in (("Bilinear", "bilinear"), ("Bicubic", "bicubic")):
        reference = transforms.Compose(
            [
                transforms.Resize(40, transforms.InterpolationMode(way)),
                transforms.CenterCrop(33),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )
        expected = reference(Image.open(tmp_path / "a.jpg")).numpy()
        settings = Images.model_validate({"resize": 40, "crop": 33, "interpolation": name})
        assert np.allclose(decode_image((tmp_path / "a.jpg").read_bytes(), settings, "f"), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_all_images_of_eight_bits_become_the_wished_channels(tmp_path: Path, mode: str) -> None:
    Image.fromarray(np.full((9, 9), 255, np.uint8)).convert(mode).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for wished, channels in (("RGB", 3), ("Grayscale", 1)):
        settings = Images.model_validate(
            AS_STORED | {"mode": wished, "mean": [0] * channels, "std": ["0.5"] * channels}
        )
        image = decode_image(content, settings, "f")
        assert image.shape == (channels, 8, 8)
        assert np.allclose(image, 2)


def test_what_is_no_image_is_refused(digits: tuple[Path, NDArray[Any], NDArray[Any]], tmp_path: Path) -> None:
    data = digits[0]
    file = next((data / "digits" / "3").iterdir())
    whole = file.read_bytes()
    for content in (b"", whole[:-20], whole[:40], b"GIF89a"):
        file.write_bytes(content)
        assert f"digits/3/{file.name} is not a whole PNG or JPEG image" in refused(data, "digits")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(file)
    assert "expected 8 bits a channel" in refused(data, "digits")
    file.unlink()
    file.symlink_to(tmp_path / "outside.png")
    assert "leads out of its claim" in refused(data, "digits")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("loose.png", "holds loose.png; expected one folder a class"),
        ("3/notes.txt", "holds 3/notes.txt; expected one folder a class"),
        ("ten/.hidden.png", "there is no PNG or JPEG image in ten"),
    ],
)
def test_other_files_in_a_folder_are_refused(
    digits: tuple[Path, NDArray[Any], NDArray[Any]], path: str, message: str
) -> None:
    file = digits[0] / "digits" / path
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    assert message in refused(digits[0], "digits")


def test_an_empty_folder_is_refused(data: Path) -> None:
    (data / "digits").mkdir()
    assert "there is no PNG or JPEG image in pvc://data/digits" in refused(data, "digits")


def test_a_folder_has_the_columns_that_it_has(digits: tuple[Path, NDArray[Any], NDArray[Any]]) -> None:
    assert "has no array or column 'pixels'" in refused(digits[0], "digits", inputs=["pixels"])
