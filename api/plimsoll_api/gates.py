"""How the artifact is measured, and the limits that it must keep."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from plimsoll_api.model import Decimal, Duration, Fraction, Model
from plimsoll_api.rules import Rule, Within, exactly_one_of, to_camel
from plimsoll_api.values import list_of


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
        description="Interleaved rounds of baseline and candidate, shared out among the processes. A p95 is told from "
        "20 runs in each process on, a p99 from 100: more rounds give more runs.",
    )
    processes: int = Field(
        default=6,
        ge=2,
        le=64,
        description="Fresh processes that measure, one after another; the intervals come from them, and are narrower "
        "the more there are.",
    )


class EvaluationSettings(Model):
    """How the artifact is measured against the baseline."""

    latency: LatencyMeasurement = Field(
        default=LatencyMeasurement(), description="How latency and throughput are measured."
    )
    accept_baseline: bool = Field(
        default=False,
        description="Judge though the baseline itself is in doubt: its answers agree with the labels no more than "
        "chance would, are all of one class, or are no finite numbers. When false, nothing is judged then: the check "
        "baseline is Inconclusive and says what was seen.",
    )


class Metric(StrEnum):
    """What a gate can limit."""

    ACCURACY = "accuracy"
    MACRO_F1 = "macroF1"
    RMSE = "rmse"
    MAE = "mae"
    R2 = "r2"
    COSINE_SIMILARITY = "cosineSimilarity"
    NEIGHBOUR_OVERLAP = "neighbourOverlap"
    RANK_CORRELATION = "rankCorrelation"
    NOT_FINITE = "notFinite"
    SIZE = "size"
    PARAMETERS = "parameters"
    MACS = "macs"
    LATENCY_P50 = "latencyP50"
    LATENCY_P95 = "latencyP95"
    LATENCY_P99 = "latencyP99"
    THROUGHPUT = "throughput"


_SHARES = (Metric.ACCURACY, Metric.MACRO_F1, Metric.R2)
_ERRORS = (Metric.RMSE, Metric.MAE)
_FIDELITY = (Metric.COSINE_SIMILARITY, Metric.NEIGHBOUR_OVERLAP, Metric.RANK_CORRELATION)
_SIZES = (Metric.SIZE, Metric.PARAMETERS, Metric.MACS)
_LATENCIES = (Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.LATENCY_P99)
TIMED = (*_LATENCIES, Metric.THROUGHPUT)

#: The bounds (snake_case) that fit each kind of metric.
BOUNDS: dict[tuple[Metric, ...], tuple[str, ...]] = {
    _SHARES: ("max_regression", "min"),
    _ERRORS: ("max_regression", "max_error"),
    _FIDELITY: ("min",),
    (Metric.NOT_FINITE,): ("max_share",),
    _SIZES: ("min_reduction", "max_ratio"),
    _LATENCIES: ("max_ratio", "max"),
    (Metric.THROUGHPUT,): ("min_ratio",),
}
BOUND_NAMES = ("max_regression", "min", "max_error", "max_share", "min_reduction", "max_ratio", "min_ratio", "max")
#: The metrics whose loss against the baseline is judged at a stated confidence.
CONFIDENT = (Metric.ACCURACY, Metric.RMSE, Metric.MAE, Metric.R2)


def _cel_list(metrics: tuple[Metric, ...]) -> str:
    return "[" + ", ".join(f"'{metric}'" for metric in metrics) + "]"


def _bounds_that_fit(metrics: tuple[Metric, ...], fitting: tuple[str, ...]) -> Rule:
    others = [name for name in BOUND_NAMES if name not in fitting]
    return Rule(
        cel=f"!(self.metric in {_cel_list(metrics)}) || !("
        + " || ".join(f"has(self.{to_camel(name)})" for name in others)
        + ")",
        holds=lambda gate: gate.metric not in metrics or all(getattr(gate, name) is None for name in others),
        message=f"{', '.join(metrics)} can be limited by {' or '.join(to_camel(name) for name in fitting)} only",
        field="metric",
    )


class Gate(Model):
    """One limit that the candidate must keep; exactly one bound, of a kind that fits the metric."""

    rules = (
        exactly_one_of(*BOUND_NAMES, subject="a gate"),
        *(_bounds_that_fit(metrics, fitting) for metrics, fitting in BOUNDS.items()),
        Rule(
            cel=f"!has(self.confidence) || (self.metric in {_cel_list(CONFIDENT)} && has(self.maxRegression))",
            holds=lambda gate: (
                gate.confidence is None or (gate.metric in CONFIDENT and gate.max_regression is not None)
            ),
            message=f"goes with maxRegression of {', '.join(CONFIDENT)} only",
            field="confidence",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel=f"!has(self.batchSize) || self.metric in {_cel_list(TIMED)}",
            holds=lambda gate: gate.batch_size is None or gate.metric in TIMED,
            message="goes with latency and throughput only",
            field="batchSize",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel="!has(self.max) || self.max.matches('[1-9]')",
            holds=lambda gate: gate.max is None or gate.max.seconds > 0,
            message="must be longer than 0",
            field="max",
        ),
    )

    metric: Metric = Field(description="What is limited.")
    max_regression: Fraction | None = Field(
        default=None,
        description="The largest loss against the baseline: for accuracy, macroF1 and r2 in absolute points, for rmse "
        "and mae as a share of the baseline's error. But for macroF1 it holds at the stated confidence: paired "
        "non-inferiority, and too few samples are Inconclusive.",
    )
    confidence: Annotated[Fraction, Within("from 50% to below 100%", at_least=0.5, below=1)] | None = Field(
        default=None,
        description="For accuracy, rmse, mae and r2 with maxRegression: one-sided confidence, from 50% to below 100%; "
        "95% when unset.",
    )
    min: Fraction | None = Field(
        default=None,
        description="For accuracy, macroF1, r2, cosineSimilarity, neighbourOverlap and rankCorrelation: the least that "
        "the candidate must reach; for accuracy, r2 and cosineSimilarity at 95% one-sided confidence.",
    )
    max_error: Annotated[Decimal, Within("above 0", above=0)] | None = Field(
        default=None,
        description="For rmse and mae: the candidate's own error may be at most this, in the unit of the labels, at "
        "95% one-sided confidence.",
    )
    max_share: Fraction | None = Field(
        default=None,
        description="For notFinite: at most this share of the candidate's answers may hold NaN or infinity. Without "
        "such a limit none may.",
    )
    min_reduction: Annotated[Fraction, Within("below 1 (100%)", below=1)] | None = Field(
        default=None,
        description="For size, parameters and macs: the candidate must be smaller by at least this share.",
    )
    max_ratio: Annotated[Decimal, Within("above 0", above=0)] | None = Field(
        default=None,
        description="For size, parameters, macs and latency: candidate over baseline may be at most this.",
    )
    min_ratio: Annotated[Decimal, Within("above 0", above=0)] | None = Field(
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

    @property
    def bound_name(self) -> str:
        """The one bound that is set, as the field is called in Python."""
        return next(name for name in BOUND_NAMES if getattr(self, name) is not None)

    @property
    def bound(self) -> Fraction | Decimal | Duration:
        """The one bound that is set, as it was written."""
        bound: Fraction | Decimal | Duration = getattr(self, self.bound_name)
        return bound

    @property
    def limit(self) -> float:
        """The one bound that is set, as a number: a share, a ratio or seconds."""
        return self.bound.seconds if isinstance(self.bound, Duration) else self.bound.value


def no_limit_twice(first: Callable[[Any], int], cel_first: str) -> Rule:
    """Return the rule that a model's `gates` limit no metric twice by one bound at one batch size.

    `first` is the batch size that a gate of the model means when it names none.
    """
    size = f"(has({{0}}.batchSize) ? {{0}}.batchSize : {cel_first})"
    bounds = [f"has(g.{to_camel(name)}) == has(h.{to_camel(name)})" for name in BOUND_NAMES]
    same = " && ".join(["g.metric == h.metric", *bounds, f"{size.format('g')} == {size.format('h')}"])

    def keys(model: Any) -> list[tuple[object, ...]]:
        return [
            (
                gate.metric,
                *(getattr(gate, name) is None for name in BOUND_NAMES),
                gate.batch_size or first(model),
            )
            for gate in model.gates
        ]

    return Rule(
        cel=f"self.gates.all(g, self.gates.filter(h, {same}).size() == 1)",
        holds=lambda model: len(set(keys(model))) == len(model.gates),
        message="must not limit the same metric twice by the same bound at the same batch size",
        field="gates",
    )
