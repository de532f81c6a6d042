"""Data sets are read as the fields say, and every way they can be wrong names its field."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plimsoll_api.data import FILE_ENDINGS, DataSource
from plimsoll_job.errors import UserError
from plimsoll_job.load.data import Samples, check_classes, check_inputs, read_samples
from plimsoll_job.load.formats import READERS
from plimsoll_job.load.labels import class_numbers
from plimsoll_job.load.store import Store

INPUTS = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
LABELS = np.array([0, 1, 2, 0, 1, 2])


class Folder:
    """A claim named data."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "data"
        self.path.mkdir()
        self.store = Store(claims=directory)

    def npz(self, **arrays: Any) -> str:
        np.savez(self.path / "set.npz", **arrays)
        return "pvc://data/set.npz"

    def parquet(self, **columns: Any) -> str:
        pq.write_table(pa.table(columns), self.path / "set.parquet")
        return "pvc://data/set.parquet"

    def bytes(self, name: str, content: bytes) -> str:
        (self.path / name).write_bytes(content)
        return f"pvc://data/{name}"

    def read(self, uri: str, columns: list[str] | None = None, *, labels: bool = True, **source: Any) -> Samples:
        given = DataSource.model_validate({"uri": uri, **source})
        return read_samples(
            given, self.store, "spec.data.evaluation", class_numbers if labels else None, columns=columns or []
        )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def refused(folder: Folder, *arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        folder.read(*arguments, **options)
    return error.value.message


def test_arrays_of_npz(folder: Folder) -> None:
    uri = folder.npz(inputs=INPUTS.astype(np.float64), labels=LABELS.astype(np.uint8), part=np.array(list("aabbcc")))
    samples = folder.read(uri, ["part"])
    assert samples.inputs["inputs"].dtype == np.float32
    assert samples.inputs["inputs"].shape == (6, 2, 2)
    assert samples.labels is not None
    assert samples.labels.tolist() == LABELS.tolist()
    assert samples.columns["part"].tolist() == list("aabbcc")


def test_a_column_of_lists(folder: Folder) -> None:
    uri = folder.parquet(inputs=INPUTS.reshape(6, 4).tolist(), labels=LABELS)
    assert np.array_equal(folder.read(uri).inputs["inputs"], INPUTS.reshape(6, 4))


def test_a_column_of_fixed_size_lists(folder: Folder) -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(INPUTS.ravel()), 4)
    assert np.array_equal(
        folder.read(folder.parquet(inputs=lists, labels=LABELS)).inputs["inputs"], INPUTS.reshape(6, 4)
    )


def test_a_column_of_lists_of_lists(folder: Folder) -> None:
    assert np.array_equal(folder.read(folder.parquet(inputs=INPUTS.tolist(), labels=LABELS)).inputs["inputs"], INPUTS)


def test_a_column_of_fixed_shape_tensors(folder: Folder) -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(INPUTS)
    assert np.array_equal(folder.read(folder.parquet(inputs=tensors, labels=LABELS)).inputs["inputs"], INPUTS)


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_several_numbers_a_sample_are_stacked_in_the_order_of_the_field(folder: Folder, kind: str) -> None:
    uri = getattr(folder, kind)(width=np.arange(6), height=np.arange(6) * 0.5, labels=LABELS)
    samples = folder.read(uri, inputs=["height", "width"])
    assert samples.inputs["inputs"].tolist() == [[number * 0.5, number] for number in range(6)]


def test_row_groups_are_joined(folder: Folder) -> None:
    table = pa.table({"inputs": INPUTS.reshape(6, 4).tolist(), "labels": LABELS})
    pq.write_table(table, folder.path / "set.parquet", row_group_size=2)
    assert np.array_equal(folder.read("pvc://data/set.parquet").inputs["inputs"], INPUTS.reshape(6, 4))


def test_labels_are_not_asked_for_where_they_are_not_used(folder: Folder) -> None:
    assert folder.read(folder.npz(inputs=INPUTS), labels=False).labels is None


def test_samples_are_drawn_without_replacement_by_the_seed(folder: Folder) -> None:
    samples = folder.read(folder.npz(inputs=np.arange(100), labels=np.zeros(100, int)))
    drawn = [samples.draw(10, seed).inputs["inputs"].ravel().tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 10
    assert samples.draw(100, 7).inputs["inputs"].ravel().tolist() == list(range(100))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": LABELS}, "spec.data.evaluation.inputs: .* has no array or column 'inputs'"),
        ({"inputs": INPUTS}, "spec.data.evaluation.labels: .* has no array or column 'labels'"),
        ({"inputs": INPUTS, "labels": LABELS[:5]}, "spec.data.evaluation.labels: 'labels' has 5 entries, .* have 6"),
        ({"inputs": INPUTS * np.nan, "labels": LABELS}, "spec.data.evaluation.inputs: 6 of 6 samples hold NaN"),
        ({"inputs": INPUTS, "labels": LABELS * 0.5}, "spec.data.evaluation.labels: expected integer class labels"),
        ({"inputs": INPUTS, "labels": LABELS * 1.0}, "spec.data.evaluation.labels: .*; store them as integers"),
        ({"inputs": INPUTS, "labels": LABELS - 1}, "spec.data.evaluation.labels: label -1 is negative"),
        (
            {"inputs": INPUTS, "labels": np.stack([LABELS, LABELS], 1)},
            "spec.data.evaluation.labels: expected one label",
        ),
        ({"inputs": INPUTS[:0], "labels": LABELS[:0]}, "spec.data.evaluation.inputs: the data set is empty"),
        ({"inputs": np.array(list("abcdef")), "labels": LABELS}, "spec.data.evaluation.inputs: .* expected numbers"),
        (
            {"inputs": INPUTS.astype("m8[s]"), "labels": LABELS},
            r"spec.data.evaluation.inputs: 'inputs' holds timedelta64\[s\], expected numbers",
        ),
        (
            {"inputs": INPUTS, "labels": LABELS.astype("m8[s]")},
            r"spec.data.evaluation.labels: expected integer class labels from 0, got timedelta64",
        ),
        (
            {"inputs": INPUTS.astype(np.float64) + 1e300, "labels": LABELS},
            "6 of 6 samples hold NaN or infinite numbers, .*; what float32 cannot hold is infinite",
        ),
        ({"inputs": np.float32(3), "labels": LABELS}, "spec.data.evaluation.uri: .* is a single number"),
    ],
)
def test_wrong_arrays_name_their_field(folder: Folder, arrays: dict[str, Any], message: str) -> None:
    uri = folder.npz(**arrays)
    with pytest.raises(UserError, match=message):
        folder.read(uri)


def test_a_bad_sample_is_named(folder: Folder) -> None:
    inputs = INPUTS.copy()
    inputs[4, 0, 1] = np.inf
    assert "1 of 6 samples hold NaN or infinite numbers, the first is sample 4" in refused(
        folder, folder.npz(inputs=inputs, labels=LABELS)
    )


def test_a_missing_slice_column_names_its_field(folder: Folder) -> None:
    message = refused(folder, folder.npz(inputs=INPUTS, labels=LABELS), ["writer"])
    assert message.startswith("spec.data.evaluation.slices: ")


def test_objects_are_never_unpickled(folder: Folder) -> None:
    uri = folder.npz(inputs=np.array([{"a": 1}] * 6, dtype=object), labels=LABELS)
    told = refused(folder, uri)
    assert "never unpickled" in told
    assert "allow_pickle" not in told


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\x80\x04\x95 pickle", b""])
def test_what_is_no_archive_is_told_without_advice_to_unpickle(folder: Folder, content: bytes) -> None:
    (folder.path / "set.npz").write_bytes(content)
    told = refused(folder, "pvc://data/set.npz")
    assert "pvc://data/set.npz is not a .npz file, which is a zip archive of arrays; write it with numpy.savez" in told
    assert "pickle" not in told


@pytest.mark.parametrize("name", ["set.npz", "set.parquet"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"PAR1 torn", b"\x80\x04K\x01.", b"\x93NUMPY torn"])
def test_files_that_are_not_whole_are_refused(folder: Folder, name: str, content: bytes) -> None:
    assert refused(folder, folder.bytes(name, content)).startswith("spec.data.evaluation.uri: ")


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_files_torn_anywhere_are_refused(folder: Folder, kind: str) -> None:
    uri = getattr(folder, kind)(inputs=INPUTS.reshape(6, 4).tolist(), labels=LABELS)
    whole = (folder.path / f"set.{kind}").read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        (folder.path / f"set.{kind}").write_bytes(whole[:length])
        assert refused(folder, uri).startswith("spec.data.evaluation.uri: ")


def test_other_endings_are_refused(folder: Folder) -> None:
    assert "expected a file that ends in .npz, .parquet, .csv, .jsonl, or a directory" in refused(
        folder, folder.bytes("set.tsv", b"1,2")
    )
    assert "got pvc://data/none" in refused(folder, "pvc://data/none")


def test_every_ending_of_the_api_has_its_reader_and_no_other() -> None:
    assert tuple(READERS) == FILE_ENDINGS


def test_lists_of_different_lengths_are_refused(folder: Folder) -> None:
    assert "not all of one length" in refused(folder, folder.parquet(inputs=[[1.0], [1.0, 2.0]], labels=[0, 1]))


def test_empty_entries_are_refused(folder: Folder) -> None:
    assert "'labels' has 1 empty entries" in refused(folder, folder.parquet(inputs=[1.0, 2.0], labels=[0, None]))


def test_labels_beyond_the_classes_are_refused() -> None:
    check_classes(LABELS, 3, "f")
    with pytest.raises(UserError, match=r"f: label 2 is beyond the model's 2 classes \(0 to 1\)"):
        check_classes(LABELS, 2, "f")


def test_samples_of_another_shape_are_refused() -> None:
    samples = Samples({"inputs": INPUTS}, None, "")
    check_inputs(samples, {"inputs": (2, 2)}, "f")
    check_inputs(samples, {"inputs": (2, None)}, "f")
    for expected in ((2, 3), (4,), (1, 2, 2)):
        with pytest.raises(UserError, match=r"f: one sample has the shape \[2, 2\], the model takes"):
            check_inputs(samples, {"inputs": expected}, "f")


def test_samples_of_other_inputs_are_refused() -> None:
    samples = Samples({"inputs": INPUTS}, None, "")
    with pytest.raises(UserError, match=r"f: the data gives inputs, the model takes input_ids, attention_mask"):
        check_inputs(samples, {"input_ids": (2,), "attention_mask": (2,)}, "f")


@pytest.mark.parametrize(
    ("inputs", "sizes"),
    [
        ({"image": np.zeros((600, 1, 8, 8), np.float32)}, [256, 256, 88]),
        # 602 kB a photograph: 13 of them are 167 MB in the widest layer of MaxViT.
        ({"image": np.zeros((30, 3, 224, 224), np.float32)}, [13, 13, 4]),
        # Tokens are few bytes, and what becomes of them is not: 512 of BERT's are 6 MiB in its widest layer.
        ({"words": np.zeros((5, 512), np.int64), "mask": np.zeros((5, 512), np.int64)}, [2, 2, 1]),
        ({"image": np.zeros((2, 5_000_000), np.float32)}, [1, 1]),
    ],
)
def test_batches_are_small_where_samples_are_large(inputs: dict[str, Any], sizes: list[int]) -> None:
    samples = Samples(inputs, None, "")
    batches = list(samples.batches())
    assert [len(next(iter(batch.values()))) for batch in batches] == sizes
    assert all(batch.keys() == inputs.keys() for batch in batches)
