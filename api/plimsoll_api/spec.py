"""The spec of a CompressionJob: what a person asks for. Its parts are at home in the modules imported here."""

from __future__ import annotations

from pydantic import Field

from plimsoll_api.data import CalibrationData, Data, DataSource, EvaluationData, ImageMode, Images, Interpolation, Slice
from plimsoll_api.gates import EvaluationSettings, Gate, LatencyMeasurement, Metric, no_limit_twice
from plimsoll_api.model import Model
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
    CEL_NEEDS_CALIBRATION,
    CEL_TRAINS,
    ActivationStatistic,
    Allocation,
    AmountOf,
    AutoChoice,
    Distill,
    DistillLoss,
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
    Recovery,
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
    "CalibrationData",
    "ColumnName",
    "CompressionJobSpec",
    "Data",
    "DataSource",
    "Digest",
    "Distill",
    "DistillLoss",
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
    "Recovery",
    "ReleaseRef",
    "Resources",
    "Runtime",
    "Scope",
    "Slice",
    "Step",
    "Task",
    "Toleration",
    "Uri",
    "list_of",
]


def _has_step(spec: CompressionJobSpec, technique: str) -> bool:
    return any(getattr(step, technique) is not None for step in spec.steps)


def _needs_calibration(step: Step) -> bool:
    return (
        (step.quantize is not None and step.quantize.needs_calibration)
        or (step.prune is not None and step.prune.needs_calibration)
        or (step.factorize is not None and step.factorize.method == FactorizeMethod.ACTIVATION_SVD)
    )


def _factorizes_zeros(spec: CompressionJobSpec) -> bool:
    """Tell whether a factorize step follows one that set single weights to zero."""
    sparse = False
    for step in spec.steps:
        sparse |= step.prune is not None and step.prune.granularity != Granularity.STRUCTURED
        if sparse and step.factorize is not None:
            return True
    return False


def _breaks_pattern(spec: CompressionJobSpec) -> bool:
    """Tell whether a structured prune follows one that left N of M."""
    kinds = [step.prune.granularity for step in spec.steps if step.prune is not None]
    return Granularity.N_OF_M in kinds and Granularity.STRUCTURED in kinds[kinds.index(Granularity.N_OF_M) :]


def _models(spec: CompressionJobSpec) -> list[ModelSource]:
    teachers = [step.distill.teacher for step in spec.steps if step.distill and step.distill.teacher]
    return [spec.model, *teachers]


def _is_directory(source: ModelSource) -> bool:
    return source.architecture.huggingface is not None


def _takes_a_graph(step: Step) -> bool:
    return step.quantize is not None and not step.trains


def _changes_structure(step: Step) -> bool:
    return (
        step.factorize is not None
        or (step.prune is not None and step.prune.granularity == Granularity.STRUCTURED)
        or (step.distill is not None and step.distill.student is not None)
    )


_CEL_FIRST_SPARSE = "self.steps.map(s, has(s.prune) && s.prune.granularity != 'Structured').indexOf(true)"
_CEL_FIRST_PATTERN = "self.steps.map(s, has(s.prune) && s.prune.granularity == 'NofM').indexOf(true)"
_CEL_STRUCTURED = "self.steps.map(s, has(s.prune) && s.prune.granularity == 'Structured').lastIndexOf(true)"
_CEL_FACTORIZE = "self.steps.map(s, has(s.factorize)).lastIndexOf(true)"


class CompressionJobSpec(Model):
    """One request to compress one model. Immutable once started, but for suspend and ttlSecondsAfterFinished."""

    rules = (
        *JOB_RULES,
        Rule(
            cel="self.output.formats == ['Onnx'] || !self.steps.exists(s, has(s.quantize))",
            holds=lambda spec: spec.output.formats == [OutputFormat.ONNX] or not _has_step(spec, "quantize"),
            message="must be Onnx alone with a quantize step: quantized weights exist in the ONNX graph only",
            field="output.formats",
        ),
        Rule(
            cel="!('HuggingFace' in self.output.formats) || has(self.model.architecture.huggingface)",
            holds=lambda spec: (
                OutputFormat.HUGGING_FACE not in spec.output.formats or spec.model.architecture.huggingface is not None
            ),
            message="HuggingFace is for models that came as a Hugging Face directory",
            field="output.formats",
        ),
        Rule(
            cel="!('HuggingFace' in self.output.formats) || !self.steps.exists(s, has(s.factorize) || (has(s.prune) && "
            "s.prune.granularity == 'Structured') || (has(s.distill) && has(s.distill.student)))",
            holds=lambda spec: (
                OutputFormat.HUGGING_FACE not in spec.output.formats or not any(map(_changes_structure, spec.steps))
            ),
            message="HuggingFace must not go with factorize, structured pruning or a student: config.json cannot "
            "tell layers of their shapes; use TorchExport",
            field="output.formats",
        ),
        Rule(
            cel=f"!self.steps.exists(s, {CEL_TRAINS}) || has(self.data.train)",
            holds=lambda spec: not any(step.trains for step in spec.steps) or spec.data.train is not None,
            message="is required by a distill step, by the recovery of a prune step and by quantize with scheme "
            "Int8QAT",
            field="data.train",
            reason="FieldValueRequired",
        ),
        Rule(
            cel=f"!self.steps.exists(s, ({CEL_NEEDS_CALIBRATION}) || "
            "(has(s.prune) && (s.prune.criterion != 'Magnitude' || s.prune.allocation == 'Sensitivity')) || "
            "(has(s.factorize) && s.factorize.method == 'ActivationSvd')) || has(self.data.calibration)",
            holds=lambda spec: not any(map(_needs_calibration, spec.steps)) or spec.data.calibration is not None,
            message="is required by prune with criterion Activation or Redundancy or with allocation Sensitivity, by "
            "factorize with method ActivationSvd and by quantize with scheme Int8Static, Int8QAT or Auto, or with "
            "exclude.maxError",
            field="data.calibration",
            reason="FieldValueRequired",
        ),
        Rule(
            cel="!self.allowCodeExecution || has(self.model.architecture.huggingface) || self.steps.exists(s, "
            "has(s.distill) && has(s.distill.teacher) && has(s.distill.teacher.architecture.huggingface))",
            holds=lambda spec: not spec.allow_code_execution or any(map(_is_directory, _models(spec))),
            message="goes with architecture huggingface only: no other model brings code",
            field="allowCodeExecution",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel="!has(self.model.architecture.onnx) || self.steps.all(s, has(s.quantize) && "
            "s.quantize.scheme != 'Int8QAT')",
            holds=lambda spec: spec.model.architecture.onnx is None or all(map(_takes_a_graph, spec.steps)),
            message="an ONNX model can be quantized without training, and nothing else: prune, factorize, distill and "
            "Int8QAT need the module that it was exported from",
            field="steps",
        ),
        Rule(
            cel="self.steps.filter(s, has(s.distill) && has(s.distill.student)).size() <= "
            "(has(self.steps[0].distill) && has(self.steps[0].distill.student) ? 1 : 0)",
            holds=lambda spec: not any(step.distill and step.distill.student for step in spec.steps[1:]),
            message="a distill step with a student must be the first: the student takes the place of the model, and "
            "what steps before it did would be lost",
            field="steps",
        ),
        Rule(
            cel="self.steps.filter(s, has(s.quantize)).size() <= 1",
            holds=lambda spec: sum(step.quantize is not None for step in spec.steps) <= 1,
            message="must hold at most one quantize step",
            field="steps",
        ),
        Rule(
            cel="!self.steps.exists(s, has(s.quantize)) || has(self.steps[size(self.steps) - 1].quantize)",
            holds=lambda spec: not _has_step(spec, "quantize") or spec.steps[-1].quantize is not None,
            message="quantize must be the last step: integer weights can neither be pruned nor factorized nor trained "
            "any more",
            field="steps",
        ),
        Rule(
            cel="self.steps.filter(s, has(s.factorize)).size() <= 1",
            holds=lambda spec: sum(step.factorize is not None for step in spec.steps) <= 1,
            message="must hold at most one factorize step: factors are not factorized again",
            field="steps",
        ),
        Rule(
            cel=f"{_CEL_FIRST_SPARSE} < 0 || {_CEL_FACTORIZE} < {_CEL_FIRST_SPARSE}",
            holds=lambda spec: not _factorizes_zeros(spec),
            message="factorize must not follow prune with granularity Unstructured or NofM: products of factors are "
            "dense, so the zeros would be lost",
            field="steps",
        ),
        Rule(
            cel=f"{_CEL_FIRST_PATTERN} < 0 || {_CEL_STRUCTURED} < {_CEL_FIRST_PATTERN}",
            holds=lambda spec: not _breaks_pattern(spec),
            message="prune with granularity Structured must not follow one with NofM: where channels go, the weights "
            "that are left no longer keep the pattern",
            field="steps",
        ),
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
