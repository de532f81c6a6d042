"""What goes in and where results go: the model and the store."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Model
from plimsoll_api.rules import Pattern, Rule, exactly_one_of
from plimsoll_api.values import Digest, Name, Uri, list_of


class Task(StrEnum):
    """What the model does, which decides the metrics."""

    IMAGE_CLASSIFICATION = "ImageClassification"
    TEXT_CLASSIFICATION = "TextClassification"
    TABULAR_CLASSIFICATION = "TabularClassification"
    TOKEN_CLASSIFICATION = "TokenClassification"
    REGRESSION = "Regression"
    EMBEDDING = "Embedding"


class NamedArchitecture(Model):
    """A constructor of a library of the image, by its name; only its structure is taken, never its weights."""

    name: Annotated[
        str,
        Pattern(
            r"[a-z0-9_]+(\.[a-z0-9_]+)?",
            "a constructor's name of lower-case letters, digits and _, such as resnet18",
            128,
        ),
    ] = Field(description="The constructor's name, such as resnet18.")
    classes: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Classes of the last layer; as many as the constructor's own when unset.",
    )


class HuggingFaceDirectory(Model):
    """A directory as transformers' save_pretrained writes it; all settings are in its own files."""


class OnnxGraph(Model):
    """A model that is an ONNX graph already; all of it is in its own file."""

    output: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="The output that answers, by its name in the graph, where it has several, such as probabilities "
        "beside label of a scikit-learn model; the others, and what is computed for them alone, are left out. Of maps "
        "(ZipMap) the answer is the tensor that they are made of.",
    )


class Architecture(Model):
    """How the model's module is built before its weights are loaded; exactly one way."""

    rules = (exactly_one_of("factory", "torchvision", "timm", "huggingface", "onnx", subject="an architecture"),)

    factory: (
        Annotated[
            str,
            Pattern(
                r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*",
                "module:function, such as plimsoll_job.zoo:digits_cnn",
                256,
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="A function of the job image, written module:function, that takes no argument and returns the "
        "torch module. It is code of the image, never code that comes with the weights.",
    )
    torchvision: NamedArchitecture | None = Field(
        default=None,
        description="A classification constructor of torchvision, such as resnet18. The data gives the images' size.",
    )
    timm: NamedArchitecture | None = Field(
        default=None,
        description="A constructor of timm, such as convnext_tiny. The data gives the size of the images.",
    )
    huggingface: HuggingFaceDirectory | None = Field(
        default=None,
        description="A Hugging Face directory, written {}: config.json and safetensors, beside them for text "
        "tokenizer.json. transformers builds the module by config.json and the task; code of the directory is "
        "run only where spec.allowCodeExecution is true.",
    )

    onnx: OnnxGraph | None = Field(
        default=None,
        description="A float ONNX model, written {}, or with the output that answers: it can be quantized, evaluated "
        "and released, and nothing else, since there is no module to train or cut. It keeps the names of its inputs "
        "and of that output.",
    )


class ModelSource(Model):
    """The model as given: its weights and how its module is built."""

    uri: Uri = Field(
        description="The weights: a .safetensors file, or a directory that holds model.safetensors; for architecture "
        "huggingface the directory of config.json; for onnx an .onnx file, or a directory that holds model.onnx and "
        "the files of its external data."
    )
    digest: Digest | None = Field(
        default=None,
        description="sha256 of the weights file; of a Hugging Face directory, and of ONNX with external data, that of "
        "the canonical JSON (sorted keys, no spaces) of a map from each file that is read to its sha256. Verified "
        "before anything runs when given, recorded always.",
    )
    architecture: Architecture = Field(description="How the module is built.")


class Output(Model):
    """Where artifacts and reports are written."""

    uri: Uri = Field(description="The store: artifacts/, reports/ and work/ are made below it.")


class OutputFormat(StrEnum):
    """What a model is written as."""

    ONNX = "Onnx"
    HUGGING_FACE = "HuggingFace"
    TORCH_EXPORT = "TorchExport"


class JobOutput(Output):
    """Where a job's artifacts and reports are written, and in which formats."""

    rules = (
        Rule(
            cel="'Onnx' in self.formats",
            holds=lambda output: OutputFormat.ONNX in output.formats,
            message="must hold Onnx: it is what is measured and served",
            field="formats",
        ),
    )

    formats: list[OutputFormat] = Field(
        default=[OutputFormat.ONNX],
        min_length=1,
        max_length=3,
        description="What the candidate is written as. Onnx: model.onnx, always. HuggingFace: a directory huggingface/ "
        "that from_pretrained loads; for models that came as one and keep their structure. TorchExport: model.pt2 of "
        "torch.export; loading one can run code, so the manifest marks it. Each is loaded in a fresh process and must "
        "answer as the model did, to 1e-3 of the largest answer, before it is published.",
        json_schema_extra=list_of("set"),
    )


class ReleaseRef(Model):
    """A ModelRelease in the same namespace."""

    name: Name = Field(description="Its name. It may be made later: the job then waits for it.")
