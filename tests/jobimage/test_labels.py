"""Labels are matched with the names of classes as text, and with the model's outputs, in every format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plimsoll_api.artifact import ClassNames
from plimsoll_api.data import DataSource
from plimsoll_job.errors import UserError
from plimsoll_job.load.classes import check_classes_of, class_names
from plimsoll_job.load.data import Samples, read_samples
from plimsoll_job.load.labels import class_numbers, named, tag_numbers
from plimsoll_job.load.store import Store

FIELD = "spec.data.evaluation"


def read(data: Path, name: str, columns: list[str] | None = None, **source: Any) -> Samples:
    given = DataSource.model_validate({"uri": f"pvc://{data.name}/{name}", "inputs": ["a"], "labels": "kind", **source})
    return read_samples(given, Store(claims=data.parent), FIELD, class_numbers, columns=columns or [])


def refused(data: Path, name: str, **source: Any) -> str:
    with pytest.raises(UserError) as error:
        read(data, name, **source)
    return error.value.message


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write(data: Path, name: str, kinds: list[Any], separator: str = ",", encoding: str = "utf-8") -> None:
    if name.endswith(".csv"):
        rows = [f"a{separator}kind", *(f"{number}{separator}{kind}" for number, kind in enumerate(kinds))]
        (data / name).write_text("\n".join(rows) + "\n", encoding=encoding)
    elif name.endswith(".jsonl"):
        rows = [json.dumps({"a": number, "kind": kind}) for number, kind in enumerate(kinds)]
        (data / name).write_text("\n".join(rows) + "\n", encoding=encoding)
    elif name.endswith(".parquet"):
        pq.write_table(pa.table({"a": list(range(len(kinds))), "kind": kinds}), data / name)
    else:
        np.savez(data / name, a=np.arange(len(kinds)), kind=np.array(kinds))


@pytest.mark.parametrize(
    ("name", "kinds", "classes", "expected"),
    [
        # The model's output 0 is the class called 2: read as numbers, hardly any label would be right.
        ("s.csv", ["2", "0", "1", "2"], ["2", "0", "1"], [0, 1, 2, 0]),
        ("s.jsonl", [2, 0, 1, 2], ["2", "0", "1"], [0, 1, 2, 0]),
        ("s.parquet", [2, 0, 1, 2], ["2", "0", "1"], [0, 1, 2, 0]),
        ("s.npz", [2, 0, 1, 2], ["2", "0", "1"], [0, 1, 2, 0]),
        ("s.csv", ["007", "021", "014"], ["007", "014", "021"], [0, 2, 1]),
        ("s.csv", ["true", "false"], ["false", "true"], [1, 0]),
        ("s.csv", ["True", "False"], ["False", "True"], [1, 0]),
        ("s.jsonl", [True, False], ["false", "true"], [1, 0]),
        ("s.parquet", [True, False], ["false", "true"], [1, 0]),
        ("s.npz", [True, False], ["false", "true"], [1, 0]),
        ("s.csv", ["2024-01-01", "2024-07-01"], ["2024-07-01", "2024-01-01"], [1, 0]),
        ("s.jsonl", ["2024-01-01", "2024-07-01"], ["2024-07-01", "2024-01-01"], [1, 0]),
        ("s.csv", ["1.0", "2.5"], ["1.0", "2.5"], [0, 1]),
        ("s.csv", ["NA", "null", "NA"], ["null", "NA"], [1, 0, 1]),
        # No class is called by a number: these are the numbers of the outputs.
        ("s.csv", ["1", "0"], ["barolo", "barbera"], [1, 0]),
        ("s.parquet", [1, 0], ["barolo", "barbera"], [1, 0]),
    ],
)
def test_labels_are_matched_as_text(
    data: Path, name: str, kinds: list[Any], classes: list[str], expected: list[int]
) -> None:
    write(data, name, kinds)
    found = read(data, name, classes=classes)
    assert found.labels is not None
    assert found.labels.tolist() == expected


def test_a_byte_order_mark_is_no_part_of_a_name(data: Path) -> None:
    for name in ("s.csv", "s.jsonl"):
        write(data, name, ["x", "y"], encoding="utf-8-sig")
        found = read(data, name, classes=["x", "y"])
        assert found.labels is not None
        assert found.labels.tolist() == [0, 1]


def test_names_without_an_order_are_refused(data: Path) -> None:
    for kinds, first in ((["true", "false"], "'true'"), (["x", "y"], "'x'")):
        write(data, "s.csv", kinds)
        assert refused(data, "s.csv") == (
            f"{FIELD}.classes: the labels are names such as {first}; list the classes in the order of the model's "
            "outputs"
        )
    write(data, "s.csv", ["2", "3"])
    assert refused(data, "s.csv", classes=["1", "2"]) == f"{FIELD}.classes: has no '3', which {FIELD}.labels has"


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_another_separator_is_named(data: Path, separator: str, word: str) -> None:
    write(data, "s.csv", ["x", "y"], separator, encoding="utf-8-sig")
    assert refused(data, "s.csv", classes=["x", "y"]) == (
        f"{FIELD}.uri: pvc://data/s.csv has {word} between its columns; write it with commas, and with points in "
        "numbers"
    )
    (data / "s.csv").write_text(f"a{separator}kind\n1,5{separator}x\n2,5{separator}y\n")
    assert word in refused(data, "s.csv", classes=["x", "y"])


@pytest.mark.parametrize("name", ["s.csv", "s.jsonl", "s.parquet", "s.npz"])
def test_the_columns_found_are_listed(data: Path, name: str) -> None:
    write(data, name, [0, 1])
    assert refused(data, name, labels="sort") == (
        f"{FIELD}.labels: pvc://data/{name} has no array or column 'sort'; it has a, kind"
    )


def test_slices_and_texts_of_csv_are_as_they_are_written(data: Path) -> None:
    (data / "s.csv").write_text("a,kind,site\n1,0,007\n2,1,true\n")
    assert read(data, "s.csv", ["site"]).columns["site"].tolist() == ["007", "true"]
    (data / "s.csv").write_text("a,kind,site\n1,0,007\n2,1,010\n")
    assert read(data, "s.csv", ["site"]).columns["site"].tolist() == ["007", "010"]
    assert read(data, "s.csv", ["a"]).columns["a"].tolist() == [1, 2]


def test_tags_are_matched_as_text_too() -> None:
    lists = np.empty(2, dtype=object)
    lists[:] = [[2, -100, 0], [1]]
    assert tag_numbers(lists, ["2", "0", "1"], "f").tolist() == [[0, -100, 1], [2]]
    assert tag_numbers(lists, ["O", "NAME", "PLACE"], "f").tolist() == [[2, -100, 0], [1]]
    assert named(lists, ["O", "NAME", "PLACE"], "f").tolist() == [["PLACE", -100, "O"], ["NAME"]]


def test_a_number_that_a_data_set_has_no_name_for_is_refused() -> None:
    with pytest.raises(UserError, match=r"f.labels: label -1 is none of the data set's 2 classes; -1 stands for"):
        named(np.array([0, -1]), ["a", "b"], "f")
    with pytest.raises(UserError, match=r"f.labels: label 2 is none of the data set's 2 classes$"):
        named(np.array([0, 2]), ["a", "b"], "f")


# --- names and outputs


def samples(*classes: str) -> Samples:
    return Samples({"inputs": np.zeros((2, 1))}, np.array([0, 1]), "", classes=classes)


def source(*classes: str) -> DataSource:
    return DataSource(uri="pvc://data/test", classes=list(classes))


def problem(found: Samples, given: DataSource, outputs: int, known: ClassNames | None = None) -> str:
    with pytest.raises(UserError) as error:
        check_classes_of(found, given, outputs, FIELD, known)
    return error.value.message


def test_a_folder_without_one_of_the_classes_is_refused() -> None:
    check_classes_of(samples("east", "north", "south", "west"), source(), 4, FIELD)
    assert problem(samples("east", "north", "west"), source(), 4) == (
        f"{FIELD}.classes: pvc://data/test has 3 classes (east, north, west), the model has 4 outputs: which of them "
        "the labels mean is not known; list the names of all outputs, in their order"
    )
    names = ["east", "north", "south", "west"]
    check_classes_of(samples(*names), source(*names), 4, FIELD)
    assert "lists 3 names, the model has 4 outputs" in problem(samples(*names[:3]), source(*names[:3]), 4)


def test_classes_of_other_names_or_in_another_order_are_refused() -> None:
    own = ClassNames(of="Data", names=["cat", "dog"])
    check_classes_of(samples("cat", "dog"), source(), 2, FIELD, own)
    assert "the data that the model was compressed with has others (cat, dog)" in problem(
        samples("cat", "wolf"), source(), 2, own
    )
    config = ClassNames(of="Model", names=["neutral", "entailment"])
    assert "the model has in another order (neutral, entailment); list the names" in problem(
        samples("entailment", "neutral"), source(), 2, config
    )
    # Whoever lists them knows; and a configuration may call them otherwise.
    check_classes_of(samples("entailment", "neutral"), source("entailment", "neutral"), 2, FIELD, config)
    check_classes_of(samples("no", "yes"), source(), 2, FIELD, config)


def test_the_names_of_outputs_are_those_of_the_data_else_of_the_configuration() -> None:
    config = {"config.json": json.dumps({"id2label": {"0": "sad", "1": "glad"}}).encode()}
    assert class_names([(source(), samples("a", "b"))], config, 2) == ClassNames(of="Data", names=["a", "b"])
    assert class_names([(source(), samples("a")), (None, None)], config, 2) == ClassNames(
        of="Model", names=["sad", "glad"]
    )
    for unnamed in ({}, {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, {"id2label": {"0": "sad"}}, {"id2label": None}):
        assert class_names([], {"config.json": json.dumps(unnamed).encode()}, 2) is None
