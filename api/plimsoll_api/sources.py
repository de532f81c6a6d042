"""What goes in and where results go: the model and the store."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Model
from plimsoll_api.rules import Pattern
from plimsoll_api.values import Digest, Name, Uri


class Task(StrEnum):
    """What the model does, which decides the metrics."""

    IMAGE_CLASSIFICATION = "ImageClassification"
    TEXT_CLASSIFICATION = "TextClassification"
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


class Output(Model):
    """Where artifacts and reports are written."""

    uri: Uri = Field(description="The store: artifacts/, reports/ and work/ are made below it.")


class ReleaseRef(Model):
    """A ModelRelease in the same namespace."""

    name: Name = Field(description="Its name. It may be made later: the job then waits for it.")
