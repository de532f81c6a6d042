"""The status of a CompressionJob: what the operator tells."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.machine import Machine
from plimsoll_api.model import Model
from plimsoll_api.spec import Digest, list_of
from plimsoll_api.verdict import Check, Verdict

#: One a gate, and those of what is judged without one: the baseline, and answers that are not finite.
MAX_CHECKS = 34
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Condition(Model):
    """A condition as in Kubernetes' own API."""

    type: Annotated[str, Field(max_length=316)] = Field(description="What it is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=256)] = Field(
        description="One word for programs."
    )
    message: Annotated[str, Field(max_length=2048)] = Field(description="One sentence for people.")
    last_transition_time: Time = Field(description="When the status last changed.")
    observed_generation: int | None = Field(default=None, description="The generation it was decided for.")


class JobProgress(Model):
    """How far the job is."""

    stage: str = Field(max_length=64, description="What runs now.")
    percent: int = Field(ge=0, le=100, description="Of the whole job.")
    message: str = Field(default="", max_length=256, description="A few words more.")
    last_update_time: Time = Field(description="When it was last heard of.")


class MetricSummary(Model):
    """One metric of the baseline and the candidate. Numbers are written as strings, as Kubernetes advises."""

    baseline: str = Field(max_length=32, description="Of the baseline; shares from 0 to 1, bytes, seconds.")
    candidate: str = Field(max_length=32, description="Of the candidate, in the same unit.")
    change: str = Field(max_length=32, description="As people read it, such as -0.22pp, -95.4% or 0.41x.")


class JobSummary(Model):
    """The figures that people look at first."""

    quality: str | None = Field(
        default=None,
        max_length=64,
        description="The change of the task's first metric of quality, with its name, such as accuracy -0.22pp.",
    )
    accuracy: MetricSummary | None = Field(default=None, description="Share of right answers.")
    macro_f1: MetricSummary | None = Field(default=None, description="Mean F1 over the classes.")
    rmse: MetricSummary | None = Field(default=None, description="Root of the mean squared error.")
    mae: MetricSummary | None = Field(default=None, description="Mean absolute error.")
    r2: MetricSummary | None = Field(default=None, description="Share of the labels' variance that is explained.")
    cosine_similarity: MetricSummary | None = Field(
        default=None, description="Mean cosine to the baseline's vectors; 1 for the baseline."
    )
    neighbour_overlap: MetricSummary | None = Field(
        default=None, description="Share of the ten nearest neighbours that stay; 1 for the baseline."
    )
    rank_correlation: MetricSummary | None = Field(
        default=None, description="Rank correlation of the similarities of pairs; 1 for the baseline."
    )
    size: MetricSummary | None = Field(default=None, description="Bytes of the model's files on disk.")
    parameters: MetricSummary | None = Field(default=None, description="Number of parameters.")
    macs: MetricSummary | None = Field(default=None, description="Multiply-accumulates of one sample.")
    latency_p50: MetricSummary | None = Field(default=None, description="Seconds, at the first batch size.")
    latency_p95: MetricSummary | None = Field(default=None, description="Seconds, at the first batch size.")
    throughput: MetricSummary | None = Field(default=None, description="Samples a second, at the last batch size.")


class ReportRef(Model):
    """A report in a store."""

    uri: str = Field(max_length=1200, description="The JSON file.")
    digest: Digest = Field(description="sha256 of its bytes.")


class CompressionJobStatus(Model):
    """What the operator tells of a CompressionJob."""

    observed_generation: int | None = Field(default=None, description="The generation that the status is about.")
    phase: str | None = Field(
        default=None,
        max_length=32,
        description="For display only: Pending, Compressing, Evaluating, Releasing, Suspended, Succeeded, Rejected, "
        "Inconclusive or Failed. Programs read the conditions.",
    )
    start_time: Time | None = Field(default=None, description="When the plan was frozen.")
    completion_time: Time | None = Field(default=None, description="When the job ended.")
    plan_digest: Digest | None = Field(default=None, description="sha256 of the frozen plan.")
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Ready, Reconciling, Stalled, Complete, Failed, Suspended, GatePassed, Released.",
        json_schema_extra=list_of("map", "type"),
    )
    progress: JobProgress | None = Field(default=None, description="How far the job is.")
    summary: JobSummary | None = Field(default=None, description="The figures that people look at first.")
    verdict: Verdict | None = Field(default=None, description="The gate's answer.")
    checks: list[Check] = Field(
        default=[],
        max_length=MAX_CHECKS,
        description="The gate's checks, in order.",
        json_schema_extra=list_of("map", "name"),
    )
    baseline: ArtifactRef | None = Field(default=None, description="The baseline as an artifact.")
    artifact: ArtifactRef | None = Field(default=None, description="The candidate.")
    compression_peak_memory_bytes: int | None = Field(
        default=None,
        ge=0,
        description="The most host memory that the compress pod held, over all its processes: what "
        "spec.runtime.resources.limits.memory must be above. Of all pods that worked on it, the largest.",
    )
    report: ReportRef | None = Field(default=None, description="The evaluation's report.")
    measured_on: Machine | None = Field(default=None, description="The kind of machine that the verdict rests on.")
    revision: int | None = Field(default=None, description="The release's revision that it became.")
