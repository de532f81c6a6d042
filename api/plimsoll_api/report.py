"""The report: measured numbers with their provenance; and the short messages a pod ends and goes on with."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from plimsoll_api.artifact import ArtifactRef, Lineage
from plimsoll_api.machine import Machine
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
EXIT_INTERNAL_ERROR = 70
EXIT_TRY_AGAIN = 75


class DataProvenance(Model):
    """The data that was measured on."""

    uri: str
    digest: Digest
    samples: int
    answers: int | None = Field(default=None, description="Answers that count where a sample has several: its tokens.")
    classes: int | None = Field(default=None, description="Classes that the model tells apart; unset for other tasks.")


class Environment(Machine):
    """The machine and the software that measured."""

    cores: int
    packages: dict[str, str]
    peak_memory_bytes: int = Field(description="The most host memory that the evaluate pod held.")

    @property
    def machine(self) -> Machine:
        """The kind of machine, for those who compare it with another."""
        return Machine.model_validate({name: getattr(self, name) for name in Machine.model_fields})


class LatencyFigures(Model):
    """Latency and throughput of one model at one batch size."""

    batch_size: int
    p50_seconds: float
    p95_seconds: float | None = Field(default=None, description="Unset where a process has fewer than 20 runs.")
    p99_seconds: float | None = Field(default=None, description="Unset where a process has fewer than 100 runs.")
    throughput_per_second: float = Field(description="Samples per second.")
    runs: int = Field(description="In all processes.")
    processes: int = Field(description="That they were measured in.")


class QualityFigures(Model):
    """What a model's answers are worth, by the metrics of its task; the others are unset.

    A similarity is to the baseline's answers: of the baseline itself it is 1.
    """

    not_finite: int | None = Field(
        default=None,
        description="Answers that hold NaN or infinity: never right, and left out of errors and similarities.",
    )
    accuracy: float | None = Field(default=None, description="Share of right answers.")
    macro_f1: float | None = Field(default=None, description="Mean F1 over the classes.")
    rmse: float | None = Field(default=None, description="Root of the mean squared error.")
    mae: float | None = Field(default=None, description="Mean absolute error.")
    r2: float | None = Field(default=None, description="Share of the labels' variance that is explained.")
    cosine_similarity: float | None = Field(default=None, description="Mean cosine to the baseline's vectors.")
    cosine_similarity_p5: float | None = Field(
        default=None, description="The cosine that 5% of the samples fall below."
    )
    neighbour_overlap: float | None = Field(
        default=None, description="Mean share of a sample's ten nearest neighbours that stay the same."
    )
    rank_correlation: float | None = Field(
        default=None, description="Spearman's correlation of the similarities of all pairs of samples."
    )


class ModelFigures(QualityFigures):
    """What was measured of one model."""

    artifact: ArtifactRef
    size_bytes: int
    parameters: int
    nonzero_parameters: int
    macs: int | None = Field(default=None, description="Of one sample; unset where they cannot all be counted.")
    macs_unknown: str | None = Field(default=None, description="Why multiply-accumulates are unset.")
    latency: list[LatencyFigures]


class Flips(Model):
    """How the candidate's answers differ from the baseline's, sample by sample."""

    samples: int
    both_right: int
    right_to_wrong: int
    wrong_to_right: int
    both_wrong: int
    changed: int = Field(description="Samples whose predicted class differs, right or wrong.")
    effective_samples: float | None = Field(
        default=None,
        description="Where a sample has several answers: as how many independent ones they count, since those of one "
        "sample are wrong together.",
    )


class Moments(Model):
    """Moments of a few numbers that every sample has: the interval of any weighted sum of them follows."""

    samples: int
    means: list[float]
    covariances: list[list[float]] = Field(description="With samples - 1 in the denominator.")
    thirds: list[list[list[float]]] = Field(description="Third central moments, with samples in the denominator.")


class Errors(Model):
    """How far the answers of both models are from the labels, sample by sample; several outputs are averaged."""

    absolute: Moments = Field(description="Absolute errors: the baseline's, the candidate's.")
    squared: Moments = Field(description="Squared errors: the baseline's, the candidate's.")
    scaled: Moments | None = Field(
        default=None,
        description="Squares over the labels' variance: the baseline's errors, the candidate's, the distances of the "
        "labels from their mean. Unset where the labels are all the same.",
    )


class SliceFigures(Model):
    """One slice of the evaluation data."""

    column: str
    value: str
    samples: int
    baseline: QualityFigures
    candidate: QualityFigures
    flips: Flips | None = None


class RatioInterval(Model):
    """Candidate over baseline of one timed metric, with a 95% interval over the processes that measured it."""

    metric: Metric
    batch_size: int
    ratio: float
    low: float
    high: float
    processes: int
    rounds: int = Field(description="Interleaved rounds, in all processes.")


class StepFigures(QualityFigures):
    """What was measured of the model as it was after one step, against the baseline."""

    technique: str
    artifact_digest: Digest
    size_bytes: int
    parameters: int
    nonzero_parameters: int
    macs: int | None = Field(default=None, description="Of one sample; unset where they cannot all be counted.")
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
    flips: Flips | None = Field(default=None, description="For classification.")
    errors: Errors | None = Field(default=None, description="For regression.")
    similarity: Moments | None = Field(default=None, description="For embeddings: the cosine to the baseline's vector.")
    left_out: int = Field(
        default=0,
        description="Samples that errors and similarity leave out: the answer of either model is not finite.",
    )
    doubts: list[str] = Field(
        default=[], description="What speaks against the baseline itself; nothing is judged until it is accepted."
    )
    slices: list[SliceFigures] = []
    ratios: list[RatioInterval] = []
    steps: list[StepFigures] = Field(default=[], description="One row a step; the last is the candidate.")
    lineage: Lineage | None = Field(default=None, description="The candidate's, from its manifest.")
    notes: list[str] = Field(default=[], description="Sentences a person should read.")
    compression_peak_memory_bytes: int | None = Field(
        default=None, description="The most host memory that the compress pod held, over all its processes."
    )
    fallback: FallbackCheck | None = None


class Outcome(StrEnum):
    """How a pod ended."""

    DONE = "Done"
    REQUEST_WRONG = "RequestWrong"
    INTERNAL_ERROR = "InternalError"
    """Plimsoll itself is wrong: trying again cannot help, and neither can another request."""
    TRY_AGAIN = "TryAgain"


class Summary(Model):
    """The termination message of a pod: at most 4 KiB of JSON."""

    outcome: Outcome
    reason: str = Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=64)
    message: str = Field(max_length=1500, description="A sentence that names the field and what would be right.")
    baseline: ArtifactRef | None = Field(default=None, description="Set by compress.")
    candidate: ArtifactRef | None = Field(default=None, description="Set by compress.")
    peak_memory_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Set by compress: the most host memory that the pod held, over all its processes.",
    )
    report_uri: str | None = Field(default=None, max_length=1200, description="Set by evaluate.")
    report_digest: Digest | None = Field(default=None, description="Set by evaluate.")


class Progress(Model):
    """One progress line of a pod's log."""

    stage: str = Field(max_length=64, description="load, analyse, prune, distill, quantize, export, evaluate, …")
    percent: int = Field(ge=0, le=100, description="Of the whole pod's work.")
    message: str = Field(default="", max_length=200)
