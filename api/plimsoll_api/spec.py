"""The spec of a CompressionJob: what a person asks for. Its parts are at home in the modules imported here."""

from __future__ import annotations

from pydantic import Field

from plimsoll_api.data import CalibrationData, Data, DataSource, EvaluationData, Slice
from plimsoll_api.gates import EvaluationSettings, Gate, LatencyMeasurement, Metric, no_limit_twice
from plimsoll_api.images import ImageMode, Images, Interpolation
from plimsoll_api.model import Model
from plimsoll_api.order import ORDER_RULES
from plimsoll_api.requirements import REQUIREMENTS
from plimsoll_api.rules import Rule
from plimsoll_api.runtime import Resources, Runtime, Toleration
from plimsoll_api.sources import (
    Architecture,
    JobOutput,
    ModelSource,
    NamedArchitecture,
    Output,
    OutputFormat,
    ReleaseRef,
    Task,
)
from plimsoll_api.steps import (
    ActivationStatistic,
    Allocation,
    AmountOf,
    AutoChoice,
    BatchNorm,
    BiasCorrection,
    Compute,
    Distill,
    DistillLoss,
    Equalization,
    Exclusion,
    Factorize,
    FactorizeMethod,
    Granularity,
    LabelsLoss,
    LayerPair,
    LogitsLoss,
    Precision,
    Prune,
    PruneCriterion,
    Quantize,
    QuantizeScheme,
    QuantizeTraining,
    RangeMethod,
    Recovery,
    Rounding,
    Scope,
    Step,
)
from plimsoll_api.tasks import JOB_RULES
from plimsoll_api.values import ColumnName, Digest, Name, Uri, list_of

__all__ = [
    "ActivationStatistic",
    "Allocation",
    "AmountOf",
    "Architecture",
    "AutoChoice",
    "BatchNorm",
    "BiasCorrection",
    "CalibrationData",
    "ColumnName",
    "CompressionJobSpec",
    "Compute",
    "Data",
    "DataSource",
    "Digest",
    "Distill",
    "DistillLoss",
    "Equalization",
    "EvaluationData",
    "EvaluationSettings",
    "Exclusion",
    "Factorize",
    "FactorizeMethod",
    "Gate",
    "Granularity",
    "ImageMode",
    "Images",
    "Interpolation",
    "JobOutput",
    "LabelsLoss",
    "LatencyMeasurement",
    "LayerPair",
    "LogitsLoss",
    "Metric",
    "ModelSource",
    "Name",
    "NamedArchitecture",
    "Output",
    "OutputFormat",
    "Precision",
    "Prune",
    "PruneCriterion",
    "Quantize",
    "QuantizeScheme",
    "QuantizeTraining",
    "RangeMethod",
    "Recovery",
    "ReleaseRef",
    "Resources",
    "Rounding",
    "Runtime",
    "Scope",
    "Slice",
    "Step",
    "Task",
    "Toleration",
    "Uri",
    "list_of",
]


class CompressionJobSpec(Model):
    """One request to compress one model. Immutable once started, but for suspend and ttlSecondsAfterFinished."""

    rules = (
        *JOB_RULES,
        *REQUIREMENTS,
        *ORDER_RULES,
        no_limit_twice(lambda spec: spec.evaluation.latency.batch_sizes[0], "self.evaluation.latency.batchSizes[0]"),
        Rule(
            cel="self.gates.all(g, !has(g.batchSize) || g.batchSize in self.evaluation.latency.batchSizes)",
            holds=lambda spec: all(
                gate.batch_size is None or gate.batch_size in spec.evaluation.latency.batch_sizes for gate in spec.gates
            ),
            message="batchSize must be one of evaluation.latency.batchSizes: nothing else is measured",
            field="gates",
        ),
    )

    model: ModelSource = Field(description="The model as given.")
    task: Task = Field(description="What the model does.")
    data: Data = Field(description="Training, calibration and evaluation data.")
    steps: list[Step] = Field(
        min_length=1,
        max_length=16,
        description="Techniques, in order. quantize comes last and once. factorize comes once, and before any prune "
        "with granularity Unstructured or NofM.",
        json_schema_extra=list_of("atomic"),
    )
    seed: int = Field(default=0, ge=0, le=2_147_483_647, description="Seed of every random choice of the run.")
    evaluation: EvaluationSettings = Field(default=EvaluationSettings(), description="How the artifact is measured.")
    gates: list[Gate] = Field(
        min_length=1,
        max_length=32,
        description="Limits that all must hold before anything is released.",
        json_schema_extra=list_of("atomic"),
    )
    output: JobOutput = Field(description="Where artifacts and reports are written.")
    release_ref: ReleaseRef | None = Field(default=None, description="The release that gets the model when it passes.")
    runtime: Runtime = Field(default=Runtime(), description="Where the compress pod runs.")
    evaluation_runtime: Runtime | None = Field(
        default=None,
        description="Where the evaluate pod runs: the serving kind of node; as runtime when unset.",
    )
    suspend: bool = Field(default=False, description="Pause: running pods are stopped; finished work is kept.")
    allow_code_execution: bool = Field(
        default=False,
        description="Run the Python files that come with a Hugging Face directory whose config.json names them "
        "(auto_map). Such code can do all that the compress pod can: read its models and data, and write the output. "
        "Only for directories that you trust as the job image itself. Nothing is fetched, and the evaluate pod never "
        "runs it. When false, such a directory is refused.",
    )
    backoff_limit: int = Field(default=2, ge=0, le=100, description="Retries of a stage after a failure.")
    active_deadline_seconds: int | None = Field(
        default=None, ge=1, le=31_536_000, description="The whole job fails when it runs longer than this."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=315_360_000,
        description="The CompressionJob is deleted this long after its end; never when unset. Revisions stay.",
    )

    @property
    def compress_uris(self) -> list[str]:
        """All that the compress pod reads."""
        teachers = [step.distill.teacher.uri for step in self.steps if step.distill and step.distill.teacher]
        data = [source.uri for source in (self.data.train, self.data.calibration) if source is not None]
        return [self.model.uri, *teachers, *data]
