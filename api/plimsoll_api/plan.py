"""What the two pods of a job are told: the plan of the compression, the request of an evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.model import Model
from plimsoll_api.spec import (
    CalibrationData,
    DataSource,
    EvaluationData,
    EvaluationSettings,
    ModelSource,
    Output,
    Step,
    Task,
)


class Plan(Model):
    """The complete, deterministic order for one compression: same plan, same machine, same artifact.

    It holds nothing of the evaluation data, so that the compress pod cannot know it.
    """

    schema_version: Literal["v1alpha1"] = "v1alpha1"
    image: str = Field(description="The job image as ordered; empty when run without a cluster.")
    model: ModelSource
    task: Task
    train: DataSource | None = None
    calibration: CalibrationData | None = None
    steps: list[Step]
    seed: int
    output: Output


class EvaluationRequest(Model):
    """One measurement of a candidate against its baseline, both given as artifacts."""

    schema_version: Literal["v1alpha1"] = "v1alpha1"
    task: Task
    data: EvaluationData
    settings: EvaluationSettings
    seed: int
    baseline: ArtifactRef
    candidate: ArtifactRef
    fallback: ArtifactRef | None = Field(
        default=None, description="The artifact that a rollback would serve; its bytes are verified too."
    )
    output: Output
