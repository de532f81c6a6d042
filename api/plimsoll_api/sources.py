"""What goes in and where results go: the model, the data, the store."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Model
from plimsoll_api.rules import Pattern, Rule
from plimsoll_api.values import ColumnName, Digest, Name, Uri, list_of


class Task(StrEnum):
    """What the model does, which decides the metrics."""

    IMAGE_CLASSIFICATION = "ImageClassification"
    TABULAR_CLASSIFICATION = "TabularClassification"


class Architecture(Model):
    """How the model's module is built before its weights are loaded; exactly one way."""

    factory: Annotated[
        str,
        Pattern(
            r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*",
            "module:function, such as plimsoll_job.zoo:digits_cnn",
            256,
        ),
    ] = Field(
        description="A function of the job image, written module:function, that takes no argument and returns the "
        "torch module. It is code of the image, never code that comes with the weights."
    )


class ModelSource(Model):
    """The model as given: its weights and how its module is built."""

    uri: Uri = Field(description="The weights: a .safetensors file, or a directory that holds model.safetensors.")
    digest: Digest | None = Field(
        default=None,
        description="sha256 of the weights file. Verified before anything runs when given, recorded always.",
    )
    architecture: Architecture = Field(description="How the module is built.")


class DataSource(Model):
    """One data set: a .npz or .parquet file."""

    uri: Uri = Field(description="The file; its ending tells the format: .npz or .parquet.")
    inputs: list[ColumnName] = Field(
        default=["inputs"],
        min_length=1,
        max_length=1024,
        description="The arrays or columns that are the model's input. One name: an array of any shape, or a column "
        "of (fixed-shape) lists. Several names: numeric columns, stacked in this order.",
        json_schema_extra=list_of("atomic"),
    )
    labels: ColumnName = Field(default="labels", description="The array or column of integer class labels from 0.")


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
    )

    train: DataSource | None = Field(default=None, description="Training data. Required by distill steps.")
    calibration: CalibrationData | None = Field(
        default=None, description="Calibration data. Required by activation pruning and static quantization."
    )
    evaluation: EvaluationData = Field(description="Evaluation data, held out from the two others.")


class Output(Model):
    """Where artifacts and reports are written."""

    uri: Uri = Field(description="The store: artifacts/, reports/ and work/ are made below it.")


class ReleaseRef(Model):
    """A ModelRelease in the same namespace."""

    name: Name = Field(description="Its name. It may be made later: the job then waits for it.")
