"""From a report to the few figures that people look at first: what `kubectl get` shows."""

from __future__ import annotations

import math

from plimsoll_api.gates import Metric
from plimsoll_api.report import LatencyFigures, ModelFigures, Report
from plimsoll_api.status import JobSummary, MetricSummary
from plimsoll_api.tasks import quality_of

#: The field of a report's figures that holds each metric of quality.
QUALITY_METRICS = {
    Metric.ACCURACY: "accuracy",
    Metric.MACRO_F1: "macro_f1",
    Metric.RMSE: "rmse",
    Metric.MAE: "mae",
    Metric.R2: "r2",
    Metric.COSINE_SIMILARITY: "cosine_similarity",
    Metric.NEIGHBOUR_OVERLAP: "neighbour_overlap",
    Metric.RANK_CORRELATION: "rank_correlation",
}
QUALITY_FIELDS = tuple(QUALITY_METRICS.values())
SHARES, ERRORS = ("accuracy", "macro_f1"), ("rmse", "mae")


def summarize(report: Report) -> JobSummary | None:
    """Return the figures of a report; what was not measured, or is no number, is unset. None without both models."""
    baseline, candidate = report.baseline, report.candidate
    if baseline is None or candidate is None:
        return None
    first, last = _pair_at(baseline, candidate, 0), _pair_at(baseline, candidate, -1)
    return JobSummary(
        quality=_headline(report, baseline, candidate),
        **{name: _change(name, baseline, candidate) for name in QUALITY_FIELDS},
        size=_percent(baseline.size_bytes, candidate.size_bytes),
        parameters=_percent(baseline.parameters, candidate.parameters),
        macs=_percent(baseline.macs, candidate.macs),
        latency_p50=_timed(report, Metric.LATENCY_P50, first),
        latency_p95=_timed(report, Metric.LATENCY_P95, first),
        throughput=_timed(report, Metric.THROUGHPUT, last),
    )


def _pair_at(
    baseline: ModelFigures, candidate: ModelFigures, index: int
) -> tuple[LatencyFigures, LatencyFigures] | None:
    """Return the figures of both models at the first (0) or last (-1) batch size, if it is the same one."""
    if not baseline.latency or not candidate.latency:
        return None
    pair = baseline.latency[index], candidate.latency[index]
    return pair if pair[0].batch_size == pair[1].batch_size else None


def _headline(report: Report, baseline: ModelFigures, candidate: ModelFigures) -> str | None:
    """Return the change of the metric of the task that people look at first, with its name."""
    metric = quality_of(report.task)[0]
    found = _change(QUALITY_METRICS[metric], baseline, candidate)
    return f"{metric} {found.change}" if found else None


def _change(name: str, baseline: ModelFigures, candidate: ModelFigures) -> MetricSummary | None:
    """Return a metric of quality: shares change by points, errors by percent, all others by their difference."""
    before, after = getattr(baseline, name), getattr(candidate, name)
    if before is None or after is None or not (math.isfinite(before) and math.isfinite(after)):
        return None
    if name in ERRORS:
        change = f"{(after / before - 1) * 100:+.1f}%" if before > 0 else f"{after - before:+.4g}"
        return MetricSummary(baseline=f"{before:.6g}", candidate=f"{after:.6g}", change=change)
    points, unit, decimals = (100, "pp", 2) if name in SHARES else (1, "", 4)
    difference = round((after - before) * points, decimals) + 0.0
    change = f"{difference:{'+' if difference else ''}.{decimals}f}{unit}"
    return MetricSummary(baseline=f"{before:.4f}", candidate=f"{after:.4f}", change=change)


def _percent(baseline: int | None, candidate: int | None) -> MetricSummary | None:
    if baseline is None or candidate is None or baseline <= 0 or candidate < 0:
        return None
    change = round((candidate / baseline - 1) * 100, 1)
    return MetricSummary(
        baseline=str(baseline), candidate=str(candidate), change=f"{change:+.1f}%" if change else "0.0%"
    )


def _timed(report: Report, metric: Metric, pair: tuple[LatencyFigures, LatencyFigures] | None) -> MetricSummary | None:
    """Return one timed metric; its ratio is that of the interleaved rounds where the report has it."""
    if pair is None:
        return None
    baseline, candidate = (_value(figures, metric) for figures in pair)
    if baseline is None or candidate is None:
        return None
    if not (math.isfinite(baseline) and math.isfinite(candidate) and baseline > 0):
        return None
    found = [ratio for ratio in report.ratios if (ratio.metric, ratio.batch_size) == (metric, pair[0].batch_size)]
    ratio = found[0].ratio if found else candidate / baseline
    if not math.isfinite(ratio):
        return None
    return MetricSummary(baseline=f"{baseline:.6g}", candidate=f"{candidate:.6g}", change=f"{ratio:.2f}x")


def _value(figures: LatencyFigures, metric: Metric) -> float | None:
    return {
        Metric.LATENCY_P50: figures.p50_seconds,
        Metric.LATENCY_P95: figures.p95_seconds,
        Metric.THROUGHPUT: figures.throughput_per_second,
    }[metric]
