"""ModelRelease and ModelRevision: what serves, and what may serve."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.gates import no_limit_twice
from plimsoll_api.machine import Machine
from plimsoll_api.model import Model
from plimsoll_api.rules import Pattern, Rule
from plimsoll_api.spec import (
    Digest,
    EvaluationData,
    EvaluationSettings,
    Gate,
    Name,
    Output,
    Runtime,
    Task,
    list_of,
)
from plimsoll_api.status import MAX_CHECKS, Condition, JobSummary, ReportRef, Time
from plimsoll_api.tasks import GATE_RULES
from plimsoll_api.verdict import Check, Verdict


class Reevaluation(Model):
    """A wish to measure the current revision again; each new value is carried out once."""

    # Which batch size a gate without one means is known to the revision only, so none is taken for one of its own.
    rules = (no_limit_twice(lambda _: 0, "0"),)

    id: Annotated[
        str,
        Pattern(
            r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?",
            "a name of letters, digits, -, _ and . that begins and ends with a letter or digit",
            63,
        ),
    ] = Field(description="A name of this wish; a new one asks again.")
    data: EvaluationData | None = Field(
        default=None, description="The data to measure on; that of the revision's job when unset."
    )
    gates: list[Gate] = Field(
        default=[],
        max_length=32,
        description="The limits to hold; those of the revision's job when empty.",
        json_schema_extra=list_of("atomic"),
    )
    runtime: Runtime | None = Field(
        default=None, description="Where the pod runs; as the revision's job evaluated when unset."
    )
    accept_baseline: bool | None = Field(
        default=None,
        description="Judge though the baseline itself is in doubt on this data; as the revision's job when unset.",
    )


class ModelReleaseSpec(Model):
    """A name that points at the revision now serving."""

    pinned_revision: int | None = Field(
        default=None, ge=1, description="Serve this revision whatever the verdicts say."
    )
    reevaluation: Reevaluation | None = Field(
        default=None, description="Measure the current revision again, on the same or new data."
    )


class RejectedDigest(Model):
    """An artifact that is not released again unless a person pins it."""

    digest: Digest = Field(description="The artifact.")
    revision: int = Field(description="The revision that it was.")
    reason: str = Field(max_length=64, description="One word for programs.")
    message: str = Field(max_length=1024, description="Why, in a sentence.")
    time: Time = Field(description="When.")


class ReevaluationStatus(Model):
    """The last re-evaluation."""

    id: str = Field(max_length=128, description="The wish: the annotation's value or spec.reevaluation.id.")
    request_digest: Digest = Field(description="sha256 of what was asked; the same is not measured twice.")
    revision: int = Field(description="The revision that was measured.")
    verdict: Verdict | None = Field(default=None, description="The gate's answer; unset while it runs.")
    reason: str = Field(default="", max_length=64, description="One word for programs.")
    message: str = Field(default="", max_length=1024, description="One sentence for people.")
    checks: list[Check] = Field(
        default=[], max_length=MAX_CHECKS, description="The gate's checks.", json_schema_extra=list_of("map", "name")
    )
    report: ReportRef | None = Field(default=None, description="Its report.")
    measured_on: Machine | None = Field(default=None, description="The kind of machine that measured.")
    start_time: Time | None = Field(default=None, description="When it began.")
    completion_time: Time | None = Field(default=None, description="When it ended.")


class ModelReleaseStatus(Model):
    """What the operator tells of a ModelRelease."""

    observed_generation: int | None = Field(default=None, description="The generation the status is about.")
    current_revision: int | None = Field(default=None, description="The revision now serving.")
    current_digest: Digest | None = Field(default=None, description="Its artifact.")
    last_good_revision: int | None = Field(default=None, description="The revision that a rollback would return to.")
    latest_revision: int | None = Field(default=None, description="The highest number ever given.")
    rollbacks: int = Field(default=0, description="How often the pointer went back by itself.")
    last_rollback_time: Time | None = Field(default=None, description="When it last did.")
    rejected: list[RejectedDigest] = Field(
        default=[],
        max_length=64,
        description="Artifacts that are not released again.",
        json_schema_extra=list_of("map", "digest"),
    )
    reevaluation: ReevaluationStatus | None = Field(default=None, description="The last re-evaluation.")
    reevaluated: list[Digest] = Field(
        default=[],
        max_length=32,
        description="The newest wishes for a re-evaluation that were carried out, by their digests: none is twice.",
        json_schema_extra=list_of("set"),
    )
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Ready, Reconciling, Stalled, RolledBack.",
        json_schema_extra=list_of("map", "type"),
    )


class RevisionSource(Model):
    """The job that made a revision."""

    job_name: Name = Field(description="The CompressionJob.")
    job_uid: str = Field(max_length=64, description="Its UID.")
    plan_digest: Digest = Field(description="Its plan.")


class ModelRevisionSpec(Model):
    """One immutable, numbered artifact that may serve, with all that a re-evaluation needs."""

    rules = (
        Rule(
            cel="self == oldSelf",
            holds=lambda spec: True,
            message="is immutable: a ModelRevision never changes, a new model is a new revision",
            reason="FieldValueForbidden",
        ),
        *GATE_RULES,
    )

    release: Name = Field(description="The ModelRelease that it belongs to.")
    revision: int = Field(ge=1, description="Its number.")
    artifact: ArtifactRef = Field(description="What serves.")
    baseline: ArtifactRef = Field(description="What it is compared with; itself for a baseline.")
    task: Task = Field(description="What the model does.")
    evaluation_data: EvaluationData = Field(description="The data that its verdict rests on.")
    evaluation: EvaluationSettings = Field(description="How it was measured.")
    gates: list[Gate] = Field(
        max_length=32, description="The limits that it kept.", json_schema_extra=list_of("atomic")
    )
    seed: int = Field(default=0, description="The job's seed.")
    output: Output = Field(description="The store that it lies in.")
    runtime: Runtime = Field(default=Runtime(), description="Where it was evaluated.")
    source: RevisionSource = Field(description="The job that made it.")
    summary: JobSummary | None = Field(default=None, description="Its figures; unset for a baseline.")
    report: ReportRef | None = Field(default=None, description="Its report.")
    measured_on: Machine | None = Field(
        default=None,
        description="The kind of machine that its verdict rests on, of a baseline that of its candidate's.",
    )


class ModelRevisionStatus(Model):
    """What the operator tells of a ModelRevision."""

    conditions: list[Condition] = Field(
        default=[],
        max_length=8,
        description="Good: True while it may serve, False with the reason once it was rejected.",
        json_schema_extra=list_of("map", "type"),
    )
