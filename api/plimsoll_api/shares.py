"""Checks of accuracy, which rest on shares of right answers, and of the qualities that are compared as measured."""

from __future__ import annotations

import math

from plimsoll_api import figures
from plimsoll_api.findings import DECIMALS, DEFAULT_CONFIDENCE, Finding, compared, would_decide
from plimsoll_api.gates import Gate, Metric
from plimsoll_api.measured import not_finite, paired_counts, quality
from plimsoll_api.report import Report
from plimsoll_api.statistics import (
    PairedCounts,
    newcombe_paired_interval,
    samples_to_decide_difference,
    samples_to_decide_share,
    wilson_interval,
    z_score,
)
from plimsoll_api.verdict import Verdict

#: What is compared as measured, in words.
_NAMES = {
    Metric.MACRO_F1: "macro F1",
    Metric.NEIGHBOUR_OVERLAP: "neighbour overlap",
    Metric.RANK_CORRELATION: "rank correlation",
}


def accuracy_regression(report: Report, gate: Gate, limit: float) -> Finding:
    """Paired non-inferiority: the whole interval of the difference above -limit passes, the whole below fails."""
    confidence = gate.confidence.value if gate.confidence is not None else DEFAULT_CONFIDENCE
    counts = paired_counts(report)
    low, high = newcombe_paired_interval(counts, z_score(confidence))
    baseline = (counts.both + counts.only_second) / counts.samples
    candidate = (counts.both + counts.only_first) / counts.samples
    seen = (
        f"accuracy {figures.percent(baseline)} → {figures.percent(candidate)} "
        f"({figures.signed_points(counts.difference)})"
    )
    observed = figures.signed_points(counts.difference)
    allowed = f"the limit is {figures.points(limit)}"
    sure = f"{figures.percent(confidence, decimals=6)} sure that"
    if low > -limit:
        proof = f"the loss is below {figures.points(-low)}" if low < 0 else "there is no loss"
        return Finding(Verdict.PASS, observed, f"{seen}; {sure} {proof}, {allowed}")
    if high < -limit:
        return Finding(Verdict.FAIL, observed, f"{seen}; {sure} the loss is above {figures.points(-high)}, {allowed}")
    needed = _of_data(samples_to_decide_difference(counts, limit, confidence), counts, report)
    doubt = f"the loss may be {figures.points(-high)} to " if high < 0 else "anything is possible up to a loss of "
    doubt += f"{figures.points(-low)}, {allowed}"
    return Finding(
        Verdict.INCONCLUSIVE,
        observed,
        f"{seen}; {doubt}; {would_decide(needed, report.data.samples, 'samples')}",
        needed,
    )


def accuracy_minimum(report: Report, gate: Gate, limit: float) -> Finding:
    """The candidate's own accuracy by Wilson's one-sided limits at 95%."""
    counts = paired_counts(report)
    right = counts.both + counts.only_first
    low, high = wilson_interval(right, counts.samples, z_score(DEFAULT_CONFIDENCE))
    observed = figures.percent(right / counts.samples)
    seen = f"accuracy {observed} of {figures.count(report.data.samples)} samples"
    least = f"the least allowed is {figures.percent(limit)}"
    if low >= limit:
        return Finding(Verdict.PASS, observed, f"{seen}; 95% sure that it is at least {figures.percent(low)}, {least}")
    if high < limit:
        return Finding(Verdict.FAIL, observed, f"{seen}; 95% sure that it is below {figures.percent(high)}, {least}")
    needed = _of_data(samples_to_decide_share(right, counts.samples, limit, DEFAULT_CONFIDENCE), counts, report)
    doubt = f"it may still be {figures.percent(low)}, {least}"
    return Finding(
        Verdict.INCONCLUSIVE,
        observed,
        f"{seen}; {doubt}; {would_decide(needed, report.data.samples, 'samples')}",
        needed,
    )


def _of_data(needed: int | None, counts: PairedCounts, report: Report) -> int | None:
    """Return as many samples of the data as give the needed number of independent answers."""
    return None if needed is None else math.ceil(needed * report.data.samples / counts.samples)


def macro_f1_regression(report: Report, gate: Gate, limit: float) -> Finding:
    """The observed loss of macro F1 against the limit: a point comparison, without a confidence."""
    baseline, candidate = (
        quality(report.baseline, "baseline", Metric.MACRO_F1),
        quality(report.candidate, "candidate", Metric.MACRO_F1),
    )
    change = figures.signed_points(candidate - baseline)
    return compared(
        round(baseline - candidate, DECIMALS) <= limit,
        change,
        f"macro F1 {figures.percent(baseline)} → {figures.percent(candidate)} ({change}), "
        f"the limit is a loss of {figures.points(limit)}",
    )


def quality_minimum(report: Report, gate: Gate, limit: float) -> Finding:
    """The candidate's own value against the least allowed: a point comparison."""
    candidate = quality(report.candidate, "candidate", gate.metric)
    observed = figures.percent(candidate)
    return compared(
        candidate >= limit,
        observed,
        f"{_NAMES[gate.metric]} is {observed}, the least allowed is {figures.percent(limit)}",
    )


def not_finite_maximum(report: Report, gate: Gate, limit: float) -> Finding:
    """The share of the candidate's answers that hold NaN or infinity against the most allowed: as measured."""
    count, answers = not_finite(report)
    share = count / answers
    observed = f"{figures.count(count)} of {figures.count(answers)}"
    return compared(
        share <= limit,
        observed,
        f"{observed} answers hold NaN or infinity ({figures.percent(share)}), at most {figures.percent(limit)} may",
    )
