"""The report: measured numbers with their provenance; and the short messages a pod ends and goes on with."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from plimsoll_api.artifact import ArtifactRef, Lineage
from plimsoll_api.model import Model
from plimsoll_api.spec import Digest, Metric, Task

#: A progress line of a pod's log is this word, a space and the JSON of a Progress.
PROGRESS_MARK = "PLIMSOLL-PROGRESS"
#: The last log line of an evaluation is this word, a space and the canonical JSON of the Report.
REPORT_MARK = "PLIMSOLL-REPORT"
MAX_SUMMARY_BYTES = 4096
MAX_REPORT_BYTES = 256 * 1024

EXIT_DONE = 0
EXIT_REQUEST_WRONG = 64
EXIT_TRY_AGAIN = 75


class DataProvenance(Model):
    """The data that was measured on."""

    uri: str
    digest: Digest
    samples: int
    classes: int


class Environment(Model):
    """The machine and the software that measured."""

    processor: str
    cores: int
    threads: int
    packages: dict[str, str]
    peak_memory_bytes: int


class LatencyFigures(Model):
    """Latency and throughput of one model at one batch size."""

    batch_size: int
    p50_seconds: float
    p95_seconds: float
    p99_seconds: float
    throughput_per_second: float = Field(description="Samples per second.")
    runs: int


class ModelFigures(Model):
    """What was measured of one model."""

    artifact: ArtifactRef
    size_bytes: int
    parameters: int
    nonzero_parameters: int
    macs: int
    accuracy: float
    macro_f1: float
    latency: list[LatencyFigures]


class Flips(Model):
    """How the candidate's answers differ from the baseline's, sample by sample."""

    samples: int
    both_right: int
    right_to_wrong: int
    wrong_to_right: int
    both_wrong: int
    changed: int = Field(description="Samples whose predicted class differs, right or wrong.")


class SliceFigures(Model):
    """One slice of the evaluation data."""

    column: str
    value: str
    flips: Flips
    baseline_accuracy: float
    candidate_accuracy: float
    baseline_macro_f1: float
    candidate_macro_f1: float


class RatioInterval(Model):
    """Candidate over baseline of one timed metric, with a 95% interval over the interleaved rounds."""

    metric: Metric
    batch_size: int
    ratio: float
    low: float
    high: float
    rounds: int


class StepFigures(Model):
    """What was measured of the model as it was after one step, against the baseline."""

    technique: str
    artifact_digest: Digest
    size_bytes: int
    parameters: int
    nonzero_parameters: int
    macs: int
    accuracy: float
    macro_f1: float
    latency: RatioInterval = Field(description="The median at the first batch size, over the baseline's.")


class FallbackCheck(Model):
    """Whether the artifact that a rollback would serve is whole."""

    digest: Digest
    intact: bool
    message: str


class Report(Model):
    """All that one evaluation measured. Missing is None or an empty list, never a made-up number."""

    schema_version: Literal["v1alpha1"] = "v1alpha1"
    task: Task
    data: DataProvenance
    environment: Environment
    baseline: ModelFigures | None = None
    candidate: ModelFigures | None = None
    flips: Flips | None = None
    slices: list[SliceFigures] = []
    ratios: list[RatioInterval] = []
    steps: list[StepFigures] = Field(default=[], description="One row a step; the last is the candidate.")
    lineage: Lineage | None = Field(default=None, description="The candidate's, from its manifest.")
    fallback: FallbackCheck | None = None


class Outcome(StrEnum):
    """How a pod ended."""

    DONE = "Done"
    REQUEST_WRONG = "RequestWrong"
    TRY_AGAIN = "TryAgain"


class Summary(Model):
    """The termination message of a pod: at most 4 KiB of JSON."""

    outcome: Outcome
    reason: str = Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=64)
    message: str = Field(max_length=1500, description="A sentence that names the field and what would be right.")
    baseline: ArtifactRef | None = Field(default=None, description="Set by compress.")
    candidate: ArtifactRef | None = Field(default=None, description="Set by compress.")
    report_uri: str | None = Field(default=None, max_length=1200, description="Set by evaluate.")
    report_digest: Digest | None = Field(default=None, description="Set by evaluate.")


class Progress(Model):
    """One progress line of a pod's log."""

    stage: str = Field(max_length=64, description="load, analyse, prune, distill, quantize, export, evaluate, …")
    percent: int = Field(ge=0, le=100, description="Of the whole pod's work.")
    message: str = Field(default="", max_length=200)
