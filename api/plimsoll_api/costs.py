"""Checks of what a model costs: its size, and its latency and throughput by intervals of timed ratios."""

from __future__ import annotations

from plimsoll_api import figures
from plimsoll_api.findings import DECIMALS, Finding, compared, would_decide
from plimsoll_api.gates import Gate, Metric
from plimsoll_api.measured import candidate_latency, positive_figure, ratio_interval
from plimsoll_api.report import Report
from plimsoll_api.statistics import Interval, processes_to_decide_ratio
from plimsoll_api.verdict import Verdict

#: The one-sided confidence of each side of a report's 95% ratio intervals.
RATIO_CONFIDENCE = 0.975


def reduction(report: Report, gate: Gate, limit: float) -> Finding:
    """How much smaller the candidate is, as a share of the baseline."""
    baseline, candidate = _sizes(report, gate.metric)
    reached = round(1 - candidate / baseline, DECIMALS)
    return compared(
        reached >= limit,
        figures.percent(reached),
        f"{gate.metric} {figures.count(baseline)} → {figures.count(candidate)}: smaller by {figures.percent(reached)}, "
        f"the least allowed is {figures.percent(limit)}",
    )


def size_ratio(report: Report, gate: Gate, limit: float) -> Finding:
    """The candidate's size over the baseline's."""
    baseline, candidate = _sizes(report, gate.metric)
    reached = round(candidate / baseline, DECIMALS)
    return compared(
        reached <= limit,
        figures.ratio(reached),
        f"{gate.metric} {figures.count(baseline)} → {figures.count(candidate)}: {figures.ratio(reached)}, "
        f"at most {figures.ratio(limit)} is allowed",
    )


def latency_ratio(report: Report, gate: Gate, limit: float) -> Finding:
    """The interval of a latency ratio against the most allowed."""
    return _ratio(report, gate, limit, f"at most {figures.ratio(limit)} is allowed", lower_is_better=True)


def throughput_ratio(report: Report, gate: Gate, limit: float) -> Finding:
    """The interval of the throughput ratio against the least allowed."""
    return _ratio(report, gate, limit, f"at least {figures.ratio(limit)} is required", lower_is_better=False)


def latency_maximum(report: Report, gate: Gate, limit: float) -> Finding:
    """The candidate's own latency against the most allowed: a point comparison."""
    batch_size, value = candidate_latency(report, gate.metric, gate.batch_size)
    observed = figures.seconds(value)
    return compared(
        value <= limit,
        observed,
        f"{gate.metric} is {observed} at batch size {batch_size}, at most {gate.max} is allowed",
    )


def _ratio(report: Report, gate: Gate, limit: float, limit_text: str, *, lower_is_better: bool) -> Finding:
    found = ratio_interval(report, gate.metric, gate.batch_size)
    observed = figures.ratio(found.ratio)
    seen = (
        f"{gate.metric} at batch size {found.batch_size} is {observed} the baseline's "
        f"(95% interval {figures.ratio(found.low)} to {figures.ratio(found.high)}), {limit_text}"
    )
    kept = found.high <= limit if lower_is_better else found.low >= limit
    broken = found.low > limit if lower_is_better else found.high < limit
    if kept or broken:
        return compared(kept, observed, seen)
    interval = Interval(found.low, found.high)
    needed = processes_to_decide_ratio(interval, limit, found.processes, RATIO_CONFIDENCE)
    return Finding(
        Verdict.INCONCLUSIVE, observed, f"{seen}; {would_decide(needed, found.processes, 'processes')}", needed
    )


def _sizes(report: Report, metric: Metric) -> tuple[int, int]:
    return (
        positive_figure(report.baseline, "baseline", metric),
        positive_figure(report.candidate, "candidate", metric),
    )
