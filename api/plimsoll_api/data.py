"""The data of a job: files and folders, and which of their columns are what."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from plimsoll_api.images import Images
from plimsoll_api.model import Model
from plimsoll_api.rules import Rule
from plimsoll_api.values import ColumnName, Uri, list_of

#: The endings of data sets that are one file; every other one is a directory.
FILE_ENDINGS = ("npz", "parquet", "csv", "jsonl")
#: The tokens of a sample of text where nothing is said.
DEFAULT_TOKENS = 128
_A_FILE = rf"[.]({'|'.join(FILE_ENDINGS)})$"


class DataSource(Model):
    """One data set: a .npz, .parquet, .csv or .jsonl file, a folder of images, or a Hugging Face data set."""

    rules = (
        Rule(
            cel=f"!has(self.images) || !self.uri.matches('{_A_FILE}')",
            holds=lambda source: source.images is None or not source.is_file,
            message="goes with a folder only: the arrays of a file are taken as they are",
            field="images",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel="!has(self.text) || self.inputs == ['inputs']",
            holds=lambda source: source.text is None or source.inputs == ["inputs"],
            message="must not be given beside text: words are the model's only input",
            field="inputs",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel="!has(self.maxLength) || has(self.text)",
            holds=lambda source: source.max_length is None or source.text is not None,
            message="goes with text only",
            field="maxLength",
            reason="FieldValueForbidden",
        ),
    )

    uri: Uri = Field(
        description="A file, whose ending tells the format: .npz, .parquet, .csv (its first line names the columns) or "
        ".jsonl; a folder of PNG or JPEG images, one folder a class, whose columns are inputs, labels and file; or a "
        "data set that Hugging Face's Dataset.save_to_disk wrote."
    )
    inputs: list[ColumnName] = Field(
        default=["inputs"],
        min_length=1,
        max_length=1024,
        description="The arrays or columns that are the model's input. One name: an array of any shape, or a column "
        "of (fixed-shape) lists. Several names: numeric columns, stacked in this order.",
        json_schema_extra=list_of("atomic"),
    )
    text: list[ColumnName] | None = Field(
        default=None,
        min_length=1,
        max_length=2,
        description="In place of inputs: the column of texts, or the two columns of pairs of texts. The model's own "
        "tokenizer turns them into input_ids and attention_mask.",
        json_schema_extra=list_of("atomic"),
    )
    max_length: int | None = Field(
        default=None,
        ge=2,
        le=32_768,
        description="For text: tokens of a sample. Longer ones are cut, shorter ones are padded. 128 when unset.",
    )
    labels: ColumnName = Field(
        default="labels",
        description="The array or column of class labels: integers from 0, or names that classes lists.",
    )
    classes: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(
        default=[],
        max_length=4096,
        description="The names of the classes in the order of the model's outputs. Needed where labels are names; when "
        "empty, those that a Hugging Face data set lists, or the names of the folders of images in alphabetical order.",
        json_schema_extra=list_of("set"),
    )
    images: Images | None = Field(
        default=None, description="How images of a folder or data set are read; the defaults of each field when unset."
    )

    @property
    def tokens(self) -> int:
        """The tokens of a sample of text."""
        return self.max_length or DEFAULT_TOKENS

    @property
    def is_file(self) -> bool:
        """Whether it is one file, and no directory."""
        return re.search(_A_FILE, self.uri) is not None


class CalibrationData(DataSource):
    """Data for statistics of activations: pruning criteria and quantization ranges."""

    samples: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Use this many samples, drawn by the seed without replacement; all when unset.",
    )


class Slice(Model):
    """A part of the evaluation data that is measured on its own."""

    column: ColumnName = Field(
        description="An array or column of the evaluation data; each of its values is one slice."
    )


class EvaluationData(DataSource):
    """Data that the verdict rests on. Only the evaluation pod mounts it."""

    slices: list[Slice] = Field(
        default=[],
        max_length=16,
        description="Columns by whose values the metrics are also reported.",
        json_schema_extra=list_of("map", "column"),
    )


def same_text(one: DataSource, other: DataSource) -> bool:
    """Return whether both give text, of as many columns and as much of it, or neither does.

    Pairs of texts have an input of their own, which the exported model lacks when it was made for single ones.
    """
    if one.text is None or other.text is None:
        return one.text is None and other.text is None
    return len(one.text) == len(other.text) and one.tokens == other.tokens


def same_columns(one: DataSource, other: DataSource) -> bool:
    """Return whether both stack the same columns in the same order; of a single array the columns have no names."""
    return 1 in (len(one.inputs), len(other.inputs)) or one.inputs == other.inputs


def _like_the_evaluation(name: str, alike: Callable[[DataSource, DataSource], bool], cel: str, message: str) -> Rule:
    """Return the rule that this data set, where it is given, is like the evaluation data."""
    return Rule(
        cel=f"!has(self.{name}) || {cel.replace('DATA', f'self.{name}')}",
        holds=lambda data: getattr(data, name) is None or alike(getattr(data, name), data.evaluation),
        message=f"must {message}: a model takes one kind of input",
        field=name,
    )


def _same_text(name: str) -> Rule:
    tokens = f"(has({{0}}.maxLength) ? {{0}}.maxLength : {DEFAULT_TOKENS})"
    return _like_the_evaluation(
        name,
        same_text,
        "(has(DATA.text) == has(self.evaluation.text) && (!has(self.evaluation.text) || "
        "(DATA.text.size() == self.evaluation.text.size() && "
        f"{tokens.format('DATA')} == {tokens.format('self.evaluation')})))",
        "give text where the evaluation data does, of as many columns and of the same maxLength",
    )


def _same_columns(name: str) -> Rule:
    return _like_the_evaluation(
        name,
        same_columns,
        "DATA.inputs.size() == 1 || self.evaluation.inputs.size() == 1 || DATA.inputs == self.evaluation.inputs",
        "name the inputs of the evaluation data in the same order, where both name several",
    )


class Data(Model):
    """The data of a job: each part is mounted only where it is used."""

    rules = (
        Rule(
            cel="!has(self.train) || self.train.uri != self.evaluation.uri",
            holds=lambda data: data.train is None or data.train.uri != data.evaluation.uri,
            message="must not be the training data: evaluation data is held out, or the verdict is worth nothing",
            field="evaluation.uri",
        ),
        Rule(
            cel="!has(self.calibration) || self.calibration.uri != self.evaluation.uri",
            holds=lambda data: data.calibration is None or data.calibration.uri != data.evaluation.uri,
            message="must not be the calibration data: evaluation data is held out, or the verdict is worth nothing",
            field="evaluation.uri",
        ),
        *(same(name) for same in (_same_text, _same_columns) for name in ("train", "calibration")),
    )

    train: DataSource | None = Field(default=None, description="Training data. Required by steps that train.")
    calibration: CalibrationData | None = Field(
        default=None, description="Calibration data. Required by activation pruning and static quantization."
    )
    evaluation: EvaluationData = Field(description="Evaluation data, held out from the two others.")
