"""From a report to the few figures that people look at first: what `kubectl get` shows."""

from __future__ import annotations

import math

from plimsoll_api.gates import Metric
from plimsoll_api.report import LatencyFigures, ModelFigures, Report
from plimsoll_api.status import JobSummary, MetricSummary


def summarize(report: Report) -> JobSummary | None:
    """Return the figures of a report; what was not measured, or is no number, is unset. None without both models."""
    baseline, candidate = report.baseline, report.candidate
    if baseline is None or candidate is None:
        return None
    first, last = _pair_at(baseline, candidate, 0), _pair_at(baseline, candidate, -1)
    return JobSummary(
        accuracy=_points(baseline.accuracy, candidate.accuracy),
        macro_f1=_points(baseline.macro_f1, candidate.macro_f1),
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


def _points(baseline: float, candidate: float) -> MetricSummary | None:
    if not (math.isfinite(baseline) and math.isfinite(candidate)):
        return None
    change = round((candidate - baseline) * 100, 2) + 0.0
    return MetricSummary(
        baseline=f"{baseline:.4f}", candidate=f"{candidate:.4f}", change=f"{change:+.2f}pp" if change else "0.00pp"
    )


def _percent(baseline: int, candidate: int) -> MetricSummary | None:
    if baseline <= 0 or candidate < 0:
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
    if not (math.isfinite(baseline) and math.isfinite(candidate) and baseline > 0):
        return None
    found = [ratio for ratio in report.ratios if (ratio.metric, ratio.batch_size) == (metric, pair[0].batch_size)]
    ratio = found[0].ratio if found else candidate / baseline
    if not math.isfinite(ratio):
        return None
    return MetricSummary(baseline=f"{baseline:.6g}", candidate=f"{candidate:.6g}", change=f"{ratio:.2f}x")


def _value(figures: LatencyFigures, metric: Metric) -> float:
    return {
        Metric.LATENCY_P50: figures.p50_seconds,
        Metric.LATENCY_P95: figures.p95_seconds,
        Metric.THROUGHPUT: figures.throughput_per_second,
    }[metric]
