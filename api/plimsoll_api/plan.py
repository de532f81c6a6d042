"""What the two pods of a job are told: the plan of the compression, the request of an evaluation."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.model import Model
from plimsoll_api.spec import (
    Architecture,
    CalibrationData,
    CompressionJobSpec,
    DataSource,
    EvaluationData,
    EvaluationSettings,
    JobOutput,
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
    output: JobOutput
    allow_code_execution: bool = False

    @classmethod
    def of(cls, spec: CompressionJobSpec, image: str) -> Self:
        """Return the order for the compression: all of the spec that the result depends on."""
        return cls(
            image=image,
            model=spec.model,
            task=spec.task,
            train=spec.data.train,
            calibration=spec.data.calibration,
            steps=spec.steps,
            seed=spec.seed,
            output=spec.output,
            allow_code_execution=spec.allow_code_execution,
        )

    def architectures(self) -> list[Architecture]:
        """Return the architectures of all models that the plan names: the one as given, teachers and students."""
        distills = [step.distill for step in self.steps if step.distill]
        teachers = [one.teacher.architecture for one in distills if one.teacher]
        return [self.model.architecture, *teachers, *(one.student for one in distills if one.student)]


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
    compression_peak_memory_bytes: int | None = Field(
        default=None, description="The most host memory that the compression held; for the report."
    )
    by_step: bool = Field(default=False, description="Also measure what the model was after each step.")
    output: Output

    @classmethod
    def of(
        cls,
        spec: CompressionJobSpec,
        baseline: ArtifactRef,
        candidate: ArtifactRef,
        compression_peak_memory_bytes: int | None = None,
    ) -> Self:
        """Return the order to measure what a job's compression made."""
        return cls(
            task=spec.task,
            data=spec.data.evaluation,
            settings=spec.evaluation,
            seed=spec.seed,
            baseline=baseline,
            candidate=candidate,
            compression_peak_memory_bytes=compression_peak_memory_bytes,
            by_step=True,
            output=Output(uri=spec.output.uri),
        )
