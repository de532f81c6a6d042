"""The data of a job: files and folders, and which of their columns are what."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Decimal, Model
from plimsoll_api.rules import Rule, Within
from plimsoll_api.values import ColumnName, Uri, list_of

#: The endings of data sets that are one file; every other one is a directory.
FILE_ENDINGS = ("npz", "parquet", "csv", "jsonl")
#: The tokens of a sample of text where nothing is said.
DEFAULT_TOKENS = 128
_A_FILE = rf"[.]({'|'.join(FILE_ENDINGS)})$"


class ImageMode(StrEnum):
    """The channels that an image is turned into."""

    RGB = "RGB"
    GRAYSCALE = "Grayscale"


class Interpolation(StrEnum):
    """How pixels are found when an image is resized; both smooth before they shrink."""

    BILINEAR = "Bilinear"
    BICUBIC = "Bicubic"


class Images(Model):
    """How images become numbers: resized, cut, divided by 255, less the mean, by the standard deviation."""

    rules = (
        Rule(
            cel="self.crop <= self.resize",
            holds=lambda images: images.crop <= images.resize,
            message="must not be larger than resize",
            field="crop",
        ),
        *(
            Rule(
                cel=f"!has(self.{name}) || self.{name}.size() == (self.mode == 'RGB' ? 3 : 1)",
                holds=lambda images, name=name: (  # type: ignore[misc]
                    getattr(images, name) is None or len(getattr(images, name)) == images.channels
                ),
                message="must hold one number a channel: three with mode RGB, one with Grayscale",
                field=name,
            )
            for name in ("mean", "std")
        ),
    )

    mode: ImageMode = Field(default=ImageMode.RGB, description="Channels: RGB (three) or Grayscale (one).")
    resize: int = Field(
        default=256, ge=1, le=4096, description="The image is scaled until its shorter side has this many pixels."
    )
    crop: int = Field(
        default=224, ge=1, le=4096, description="Then a square of this many pixels a side is cut from the middle."
    )
    interpolation: Interpolation = Field(
        default=Interpolation.BILINEAR, description="Bilinear (as torchvision) or Bicubic (as most of timm)."
    )
    mean: list[Annotated[Decimal, Within("at most 1", at_most=1)]] | None = Field(
        default=None,
        min_length=1,
        max_length=3,
        description="Subtracted from each channel, whose pixels are from 0 to 1. When unset, ImageNet's for RGB "
        "(0.485, 0.456, 0.406) and 0 for Grayscale.",
        json_schema_extra=list_of("atomic"),
    )
    std: list[Annotated[Decimal, Within("above 0", above=0)]] | None = Field(
        default=None,
        min_length=1,
        max_length=3,
        description="What each channel is divided by after. When unset, ImageNet's for RGB (0.229, 0.224, 0.225) and 1 "
        "for Grayscale.",
        json_schema_extra=list_of("atomic"),
    )

    @property
    def channels(self) -> int:
        """The number of channels."""
        return 3 if self.mode == ImageMode.RGB else 1


class DataSource(Model):
    """One data set: a .npz, .parquet, .csv or .jsonl file, a folder of images, or a Hugging Face data set."""

    rules = (
        Rule(
            cel=f"!has(self.images) || !self.uri.matches('{_A_FILE}')",
            holds=lambda source: source.images is None or re.search(_A_FILE, source.uri) is None,
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


def _same_text(name: str) -> Rule:
    """Return the rule that a data set gives text, as many and as much of it, exactly where the evaluation data does.

    Pairs of texts have an input of their own, which the exported model lacks when it was made for single ones.
    """

    def holds(data: Data) -> bool:
        one: DataSource | None = getattr(data, name)
        texts = data.evaluation.text
        if one is None or (one.text is None and texts is None):
            return True
        if one.text is None or texts is None:
            return False
        return len(one.text) == len(texts) and one.tokens == data.evaluation.tokens

    tokens = f"(has(self.{{0}}.maxLength) ? self.{{0}}.maxLength : {DEFAULT_TOKENS})"
    return Rule(
        cel=f"!has(self.{name}) || (has(self.{name}.text) == has(self.evaluation.text) && "
        f"(!has(self.evaluation.text) || (self.{name}.text.size() == self.evaluation.text.size() && "
        f"{tokens.format(name)} == {tokens.format('evaluation')})))",
        holds=holds,
        message="must give text where the evaluation data does, of as many columns and of the same maxLength: a model "
        "takes one kind of input",
        field=name,
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
        _same_text("train"),
        _same_text("calibration"),
    )

    train: DataSource | None = Field(default=None, description="Training data. Required by steps that train.")
    calibration: CalibrationData | None = Field(
        default=None, description="Calibration data. Required by activation pruning and static quantization."
    )
    evaluation: EvaluationData = Field(description="Evaluation data, held out from the two others.")
