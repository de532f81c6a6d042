"""The manifest of an artifact: what lies in its directory and where it comes from."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from plimsoll_api.model import Model
from plimsoll_api.spec import Digest
from plimsoll_api.values import list_of

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
#: Beside a model of text: how its texts become tokens.
TOKENIZER_FILE = "tokenizer.json"
#: Beside a model of sentence-transformers: at how many tokens it cuts texts, and whether it takes them in lower case.
SENTENCE_FILE = "sentence_bert_config.json"
#: All that says how texts become tokens.
TEXT_FILES = (TOKENIZER_FILE, SENTENCE_FILE)
#: What was done to the structure of the model as given, in order, whole: enough to do it again.
CHANGES_FILE = "changes.json"


class ProcessorFeature(StrEnum):
    """What a processor must do for an artifact to answer on it as it was made to."""

    #: Sums of 8-bit products that do not saturate on the way: x86-64 with AVX512-VNNI or AVX-VNNI, and every arm64.
    VNNI = "Vnni"


class ArtifactFile(Model):
    """One file of an artifact."""

    path: str = Field(pattern=r"^[A-Za-z0-9._/-]+$", max_length=512, description="Relative to the manifest.")
    size_bytes: int = Field(ge=0, description="Its length.")
    digest: Digest = Field(description="sha256 of its bytes.")
    serving: bool = Field(
        default=True, description="Whether serving the ONNX model needs it; only such files count as the model's size."
    )
    code: bool = Field(default=False, description="Whether loading it can run code: load it only where you trust it.")


class Tensor(Model):
    """One input or output of the model."""

    name: str = Field(description="Its name in the graph.")
    dtype: str = Field(description="NumPy's name of the element type, such as float32.")
    shape: list[int | None] = Field(description="Its dimensions; null where the batch is.")


class Leftover(Model):
    """What a step left as it was: whole, dense or float."""

    layer: str = Field(description="The module, or the node of the graph.")
    kind: str = Field(description="What it is, such as LSTM, ConvTranspose or attention.")
    share: float = Field(ge=0, le=1, description="Its share of the bytes of all weights.")
    reason: str = Field(description="Why the step left it.")


class StepRecord(Model):
    """What one step did."""

    technique: Literal["prune", "factorize", "distill", "quantize"] = Field(description="The technique.")
    settings: dict[str, Any] = Field(description="The step as ordered, defaults filled in.")
    parameters_before: int = Field(description="Parameters before the step.")
    parameters_after: int = Field(description="Parameters after the step.")
    nonzero_after: int = Field(description="Parameters that are not zero after the step.")
    macs_before: int | None = Field(
        default=None, description="Multiply-accumulates of one sample before the step; unset where not all are known."
    )
    macs_after: int | None = Field(
        default=None, description="Multiply-accumulates of one sample after the step; unset where not all are known."
    )
    artifact_digest: Digest | None = Field(
        default=None, description="The artifact that the model was after this step; unset for the last step."
    )
    details: dict[str, Any] = Field(
        default={}, description="What the technique tells of itself: layers, losses, ranges."
    )
    left: list[Leftover] = Field(default=[], description="What it could not reach, the largest first.")
    notes: list[str] = Field(default=[], description="Sentences a person should read.")


class Lineage(Model):
    """Where an artifact comes from."""

    plan_digest: Digest | None = Field(default=None, description="The plan that made it; unset for a baseline.")
    source_digest: Digest = Field(description="sha256 of the weights file that it was made from.")
    architecture: str = Field(description="What built the module, such as torchvision resnet18.")
    baseline_digest: Digest | None = Field(default=None, description="The baseline's artifact; unset for a baseline.")
    steps: list[StepRecord] = Field(default=[], description="What was done, in order.")
    packages: dict[str, str] = Field(default={}, description="Versions of the packages that made it.")
    compared: int | None = Field(
        default=None,
        ge=0,
        description="Of how many of the job's own samples the outputs were found to answer as the module, or a "
        "quantized one's float graph; 0 where random numbers stood in for samples.",
    )
    notes: list[str] = Field(default=[], description="Sentences a person should read of how it was exported.")


class ClassNames(Model):
    """What the classes are called, in the order of the model's outputs."""

    of: Literal["Data", "Model"] = Field(
        description="Where they stand: in the data of the compression, or in the model's own config.json."
    )
    names: list[str] = Field(description="One a class.")


class ArtifactManifest(Model):
    """The whole of an artifact; the sha256 of its canonical JSON is the artifact's digest."""

    schema_version: Literal["v1alpha1"] = "v1alpha1"
    format: Literal["Onnx"] = "Onnx"
    opset: int = Field(description="The ONNX operator set.")
    files: list[ArtifactFile] = Field(min_length=1, description="All files but the manifest.")
    inputs: list[Tensor] = Field(min_length=1, description="The input signature.")
    outputs: list[Tensor] = Field(min_length=1, description="The output signature.")
    parameters: int = Field(description="Parameters of the model in the artifact.")
    nonzero_parameters: int = Field(description="Those that are not zero.")
    macs: int | None = Field(
        default=None, description="Multiply-accumulates of one sample; unset where they cannot all be counted."
    )
    macs_unknown: str | None = Field(default=None, description="Why multiply-accumulates are unset.")
    requires: list[ProcessorFeature] = Field(
        default=[],
        description="What a processor must have to answer with the ONNX model as it was made to. Vnni: sums of 8-bit "
        "products that do not saturate, as on x86-64 with AVX512-VNNI or AVX-VNNI, and on every arm64. Nothing: it "
        "answers alike on each.",
    )
    classes: ClassNames | None = Field(
        default=None, description="Of a baseline that tells classes apart, where their names are known."
    )
    lineage: Lineage = Field(description="Where it comes from.")

    @property
    def serving_bytes(self) -> int:
        """The bytes of what serving the model needs; what lies beside it does not count."""
        return sum(file.size_bytes for file in self.files if file.serving)


class ArtifactRef(Model):
    """An artifact in a store."""

    uri: Annotated[str, Field(max_length=1200)] = Field(description="Its directory.")
    digest: Digest = Field(description="sha256 of its manifest.")
    size_bytes: int = Field(ge=0, description="Bytes of the files that serving it needs.")
    requires: list[ProcessorFeature] = Field(
        default=[],
        max_length=8,
        description="What a processor must have to answer with it as it was made to, as the manifest says; nothing: it "
        "answers alike on each.",
        json_schema_extra=list_of("set"),
    )

    def beside(self, digest: str) -> str:
        """Return the URI of another artifact of the same store."""
        return f"{self.uri.rpartition('/')[0]}/{directory_of(digest)}"


def directory_of(digest: str) -> str:
    """Return the name of an artifact's directory."""
    return digest.replace(":", "-")
