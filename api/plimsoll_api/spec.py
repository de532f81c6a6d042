"""The spec of a CompressionJob: what a person asks for."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from plimsoll_api.model import Decimal, Duration, Fraction, Model

#: Where an object lies: a path in a mounted claim. Reached through fsspec; further schemes come with their features.
Uri = Annotated[
    str,
    Field(pattern=r"^pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?(/[A-Za-z0-9._=@+-]+)*$", max_length=1024),
]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63)]
ColumnName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")]


def list_of(kind: str, *keys: str) -> dict[str, Any]:
    """Return the schema keywords that tell server-side apply how a list merges."""
    return {"x-kubernetes-list-type": kind} | ({"x-kubernetes-list-map-keys": list(keys)} if keys else {})


class Task(StrEnum):
    """What the model does, which decides the metrics."""

    IMAGE_CLASSIFICATION = "ImageClassification"
    TABULAR_CLASSIFICATION = "TabularClassification"


class Architecture(Model):
    """How the model's module is built before its weights are loaded; exactly one way."""

    factory: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$",
            max_length=256,
            description="A function of the job image, written module:function, that takes no argument and returns "
            "the torch module. It is code of the image, never code that comes with the weights.",
        ),
    ]


class ModelSource(Model):
    """The model as given: its weights and how its module is built."""

    uri: Uri = Field(description="The weights: a .safetensors file, or a directory that holds model.safetensors.")
    digest: Digest | None = Field(
        default=None,
        description="sha256 of the weights file. Verified before anything runs when given, recorded always.",
    )
    architecture: Architecture = Field(description="How the module is built.")


class DataSource(Model):
    """One data set: a .npz or .parquet file."""

    uri: Uri = Field(description="The file; its ending tells the format: .npz or .parquet.")
    inputs: list[ColumnName] = Field(
        default=["inputs"],
        min_length=1,
        max_length=1024,
        description="The arrays or columns that are the model's input. One name: an array of any shape, or a column "
        "of (fixed-shape) lists. Several names: numeric columns, stacked in this order.",
        json_schema_extra=list_of("atomic"),
    )
    labels: ColumnName = Field(default="labels", description="The array or column of integer class labels from 0.")


class CalibrationData(DataSource):
    """Data for statistics of activations: pruning criteria and quantization ranges."""

    samples: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Use this many samples, drawn by the seed without replacement; all when unset.",
    )


class Slice(Model):
    """A part of the evaluation data that is measured on its own."""

    column: ColumnName = Field(
        description="An array or column of the evaluation data; each of its values is one slice."
    )


class EvaluationData(DataSource):
    """Data that the verdict rests on. Only the evaluation pod mounts it."""

    slices: list[Slice] = Field(
        default=[],
        max_length=16,
        description="Columns by whose values the metrics are also reported.",
        json_schema_extra=list_of("map", "column"),
    )


class Data(Model):
    """The data of a job: each part is mounted only where it is used."""

    train: DataSource | None = Field(default=None, description="Training data. Required by distill steps.")
    calibration: CalibrationData | None = Field(
        default=None, description="Calibration data. Required by activation pruning and static quantization."
    )
    evaluation: EvaluationData = Field(description="Evaluation data, held out from the two others.")


class PruneCriterion(StrEnum):
    """What makes a weight or a channel unimportant."""

    MAGNITUDE = "Magnitude"
    ACTIVATION = "Activation"


class Granularity(StrEnum):
    """What is taken away: whole channels and neurons, or single weights."""

    STRUCTURED = "Structured"
    UNSTRUCTURED = "Unstructured"


class Prune(Model):
    """Take away the least important part of the model."""

    criterion: PruneCriterion = Field(
        description="Magnitude: the norm of the weights. Activation: mean absolute activation over all calibration "
        "batches; needs data.calibration and granularity Structured."
    )
    granularity: Granularity = Field(
        default=Granularity.STRUCTURED,
        description="Structured deletes channels and neurons, so the model gets smaller and faster. Unstructured "
        "sets weights to zero: the file and the latency stay as they are.",
    )
    amount: Fraction = Field(description="The share of the model's parameters to take away, above 0 and below 1.")


class LogitsLoss(Model):
    """Match the baseline's softened class probabilities (Hinton et al. 2015, arXiv 1503.02531)."""

    temperature: Decimal = Field(default=Decimal("4"), description="Softens both distributions; above 0, at most 100.")
    weight: Fraction | None = Field(
        default=None, description="Share of the total loss; what the other loss leaves when unset."
    )


class LabelsLoss(Model):
    """Cross-entropy with the training data's labels."""

    weight: Fraction | None = Field(
        default=None, description="Share of the total loss; what the other loss leaves when unset."
    )


class DistillLoss(Model):
    """One term of the distillation loss; exactly one member."""

    logits: LogitsLoss | None = Field(default=None, description="Match the baseline's softened class probabilities.")
    labels: LabelsLoss | None = Field(default=None, description="Cross-entropy with the training data's labels.")


class Distill(Model):
    """Train the compressed model to answer as the baseline does; also the recovery after pruning."""

    epochs: int = Field(ge=1, le=10_000, description="Passes over the training data.")
    losses: list[DistillLoss] = Field(
        default=[DistillLoss(logits=LogitsLoss())],
        min_length=1,
        max_length=2,
        description="The terms of the loss, each at most once; their weights sum to 1.",
        json_schema_extra=list_of("atomic"),
    )
    learning_rate: Decimal = Field(
        default=Decimal("0.001"),
        description="Peak learning rate of AdamW, with a cosine decay; above 0, at most 1.",
    )
    batch_size: int = Field(default=64, ge=1, le=65_536, description="Samples of one optimizer step.")


class QuantizeScheme(StrEnum):
    """The number format of weights and activations."""

    INT8_STATIC = "Int8Static"


class Quantize(Model):
    """Store and compute in a smaller number format."""

    scheme: QuantizeScheme = Field(
        description="Int8Static: ONNX Runtime static quantization in QDQ form, weights per channel, activation ranges "
        "from data.calibration."
    )


class Step(Model):
    """One use of a technique; exactly one member."""

    prune: Prune | None = Field(default=None, description="Take away the least important part.")
    distill: Distill | None = Field(default=None, description="Train to answer as the baseline does.")
    quantize: Quantize | None = Field(default=None, description="Use a smaller number format; the last step.")


class LatencyMeasurement(Model):
    """How latency and throughput are measured."""

    batch_sizes: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        default=[1, 32],
        min_length=1,
        max_length=8,
        description="Batch sizes to measure.",
        json_schema_extra=list_of("set"),
    )
    threads: int = Field(default=1, ge=1, le=256, description="Threads of the runtime, pinned.")
    rounds: int = Field(
        default=40,
        ge=8,
        le=10_000,
        description="Interleaved rounds of baseline and candidate; the intervals come from them.",
    )


class EvaluationSettings(Model):
    """How the artifact is measured against the baseline."""

    latency: LatencyMeasurement = Field(
        default=LatencyMeasurement(), description="How latency and throughput are measured."
    )


class Metric(StrEnum):
    """What a gate can limit."""

    ACCURACY = "accuracy"
    MACRO_F1 = "macroF1"
    SIZE = "size"
    PARAMETERS = "parameters"
    MACS = "macs"
    LATENCY_P50 = "latencyP50"
    LATENCY_P95 = "latencyP95"
    LATENCY_P99 = "latencyP99"
    THROUGHPUT = "throughput"


class Gate(Model):
    """One limit that the candidate must keep; exactly one bound, of a kind that fits the metric."""

    metric: Metric = Field(description="What is limited.")
    max_regression: Fraction | None = Field(
        default=None,
        description="For accuracy and macroF1: the largest loss against the baseline, in absolute points. For accuracy "
        "it holds at the stated confidence: paired non-inferiority, and too few samples are Inconclusive.",
    )
    confidence: Fraction | None = Field(
        default=None,
        description="For accuracy with maxRegression: one-sided confidence, from 50% to below 100%; 95% when unset.",
    )
    min: Fraction | None = Field(
        default=None, description="For accuracy and macroF1: the candidate's own value must reach this."
    )
    min_reduction: Fraction | None = Field(
        default=None,
        description="For size, parameters and macs: the candidate must be smaller by at least this share.",
    )
    max_ratio: Decimal | None = Field(
        default=None,
        description="For size, parameters, macs and latency: candidate over baseline may be at most this.",
    )
    min_ratio: Decimal | None = Field(
        default=None, description="For throughput: candidate over baseline must be at least this."
    )
    max: Duration | None = Field(
        default=None, description="For latency: the candidate's own value may be at most this."
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="For latency and throughput: the batch size, one of evaluation.latency.batchSizes; the first of "
        "them when unset.",
    )


class Output(Model):
    """Where artifacts and reports are written."""

    uri: Uri = Field(description="The store: artifacts/, reports/ and work/ are made below it.")


class ReleaseRef(Model):
    """A ModelRelease in the same namespace."""

    name: Name = Field(description="Its name. It may be made later: the job then waits for it.")


QuantityText = Annotated[str | int, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]


class Resources(Model):
    """Compute resources of the container, as in a pod."""

    requests: dict[str, QuantityText] = Field(
        default={}, max_length=16, description="What is reserved, by resource name."
    )
    limits: dict[str, QuantityText] = Field(
        default={},
        max_length=16,
        description="What may be used, by resource name. nvidia.com/gpu: 1 makes the step run on the GPU.",
    )


class Toleration(Model):
    """A taint that the pod tolerates, as in a pod."""

    key: str | None = Field(default=None, max_length=316, description="The taint's key.")
    operator: Annotated[str, Field(pattern="^(Exists|Equal)$")] | None = Field(
        default=None, description="Exists or Equal."
    )
    value: str | None = Field(default=None, max_length=63, description="The taint's value.")
    effect: Annotated[str, Field(pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")] | None = Field(
        default=None, description="NoSchedule, PreferNoSchedule or NoExecute; every effect when unset."
    )
    toleration_seconds: int | None = Field(default=None, description="How long a NoExecute taint is tolerated.")


class Runtime(Model):
    """Where and with what a pod runs."""

    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="The job image, ours or one built on it; the operator's default when unset.",
    )
    resources: Resources = Field(default=Resources(), description="Compute resources.")
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default={}, max_length=32, description="Labels that the node must have."
    )
    tolerations: list[Toleration] = Field(
        default=[],
        max_length=32,
        description="Taints that the pods tolerate.",
        json_schema_extra=list_of("atomic"),
    )
    priority_class_name: str | None = Field(default=None, max_length=253, description="The pods' priority.")
    service_account_name: str | None = Field(
        default=None,
        max_length=253,
        description="The pods' service account; no token of it is mounted.",
    )


class CompressionJobSpec(Model):
    """One request to compress one model. Immutable once started, but for suspend and ttlSecondsAfterFinished."""

    model: ModelSource = Field(description="The model as given.")
    task: Task = Field(description="What the model does.")
    data: Data = Field(description="Training, calibration and evaluation data.")
    steps: list[Step] = Field(
        min_length=1,
        max_length=16,
        description="Techniques, in order. quantize comes last and once; prune never follows it.",
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
    output: Output = Field(description="Where artifacts and reports are written.")
    release_ref: ReleaseRef | None = Field(default=None, description="The release that gets the model when it passes.")
    runtime: Runtime = Field(default=Runtime(), description="Where the compress pod runs.")
    evaluation_runtime: Runtime | None = Field(
        default=None,
        description="Where the evaluate pod runs: the serving kind of node; as runtime when unset.",
    )
    suspend: bool = Field(default=False, description="Pause: running pods are stopped; finished work is kept.")
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
