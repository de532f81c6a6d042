"""The gate: a pure function from a report and the limits to a verdict; the operator and `plimsoll run` share it.

Pass needs proof that a limit is kept, Fail needs proof that it is broken; all else, and all that is missing, is
Inconclusive. A check says how many samples would decide.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from plimsoll_api import figures
from plimsoll_api.findings import DEFAULT_CONFIDENCE, Finding, compared, would_decide
from plimsoll_api.gates import Gate, Metric
from plimsoll_api.means import error_maximum, error_regression, r2_minimum, r2_regression, similarity_minimum
from plimsoll_api.measured import (
    MissingError,
    candidate_latency,
    paired_counts,
    positive_figure,
    quality,
    ratio_interval,
)
from plimsoll_api.report import Report
from plimsoll_api.rules import to_camel
from plimsoll_api.statistics import (
    Interval,
    PairedCounts,
    newcombe_paired_interval,
    rounds_to_decide_ratio,
    samples_to_decide_difference,
    samples_to_decide_share,
    wilson_interval,
    z_score,
)
from plimsoll_api.verdict import Check, Judgement, Verdict

#: The one-sided confidence of each side of a report's 95% ratio intervals.
RATIO_CONFIDENCE = 0.975
#: Differences of shares are compared to this many decimals, so that 0.95 - 0.93 is 0.02.
_DECIMALS = 12
_MAX_OBSERVED, _MAX_MESSAGE, _MAX_SUMMARY = 128, 512, 1024


def judge(report: Report | None, gates: Sequence[Gate]) -> Judgement:
    """Return Fail if any check fails, else Inconclusive if any is or there is none, else Pass."""
    names = _names(gates)
    checks = [_check(report, gate, name) for gate, name in zip(gates, names, strict=True)]
    found = {check.verdict for check in checks}
    verdict = next(
        (verdict for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE) if verdict in found),
        Verdict.PASS if checks else Verdict.INCONCLUSIVE,
    )
    return Judgement(verdict=verdict, message=_summary(verdict, checks), checks=checks)


def _names(gates: Sequence[Gate]) -> list[str]:
    """Return a name for each gate; equal gates, which no spec can hold, are numbered."""
    seen: Counter[str] = Counter()
    names = []
    for gate in gates:
        parts = [gate.metric.value, to_camel(gate.bound_name)]
        name = "-".join(parts if gate.batch_size is None else [*parts, str(gate.batch_size)])
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
    return names


def _summary(verdict: Verdict, checks: list[Check]) -> str:
    if not checks:
        return "there is no limit to judge by, so nothing is proved"
    if verdict is Verdict.PASS:
        return f"all {len(checks)} checks passed" if len(checks) > 1 else "the check passed"
    decisive = [f"{check.name}: {check.message}" for check in checks if check.verdict is verdict]
    return _cut("; ".join(decisive), _MAX_SUMMARY)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _check(report: Report | None, gate: Gate, name: str) -> Check:
    try:
        if report is None:
            raise MissingError("there is no report")
        finding = CHECKS[gate.metric, gate.bound_name](report, gate, gate.limit)
    except MissingError as missing:
        finding = Finding(Verdict.INCONCLUSIVE, "", f"cannot be judged: {missing}")
    return Check(
        name=name,
        verdict=finding.verdict,
        observed=_cut(finding.observed, _MAX_OBSERVED),
        bound=f"{to_camel(gate.bound_name)} {gate.bound}",
        message=_cut(finding.message, _MAX_MESSAGE),
        needed_samples=finding.needed,
    )


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


def macro_f1_regression(report: Report, gate: Gate, limit: float) -> Finding:
    """The observed loss of macro F1 against the limit: a point comparison, without a confidence."""
    baseline, candidate = (
        quality(report.baseline, "baseline", Metric.MACRO_F1),
        quality(report.candidate, "candidate", Metric.MACRO_F1),
    )
    change = figures.signed_points(candidate - baseline)
    return compared(
        round(baseline - candidate, _DECIMALS) <= limit,
        change,
        f"macro F1 {figures.percent(baseline)} → {figures.percent(candidate)} ({change}), "
        f"the limit is a loss of {figures.points(limit)}",
    )


def _of_data(needed: int | None, counts: PairedCounts, report: Report) -> int | None:
    """Return as many samples of the data as give the needed number of independent answers."""
    return None if needed is None else math.ceil(needed * report.data.samples / counts.samples)


def quality_minimum(report: Report, gate: Gate, limit: float) -> Finding:
    """The candidate's own value against the least allowed: a point comparison."""
    candidate = quality(report.candidate, "candidate", gate.metric)
    observed = figures.percent(candidate)
    return compared(
        candidate >= limit,
        observed,
        f"{NAMES[gate.metric]} is {observed}, the least allowed is {figures.percent(limit)}",
    )


def reduction(report: Report, gate: Gate, limit: float) -> Finding:
    """How much smaller the candidate is, as a share of the baseline."""
    baseline, candidate = _sizes(report, gate.metric)
    reached = round(1 - candidate / baseline, _DECIMALS)
    return compared(
        reached >= limit,
        figures.percent(reached),
        f"{gate.metric} {figures.count(baseline)} → {figures.count(candidate)}: smaller by {figures.percent(reached)}, "
        f"the least allowed is {figures.percent(limit)}",
    )


def size_ratio(report: Report, gate: Gate, limit: float) -> Finding:
    """The candidate's size over the baseline's."""
    baseline, candidate = _sizes(report, gate.metric)
    reached = round(candidate / baseline, _DECIMALS)
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
    needed = rounds_to_decide_ratio(interval, limit, found.rounds, RATIO_CONFIDENCE)
    return Finding(Verdict.INCONCLUSIVE, observed, f"{seen}; {would_decide(needed, found.rounds, 'rounds')}", needed)


def _sizes(report: Report, metric: Metric) -> tuple[int, int]:
    return (
        positive_figure(report.baseline, "baseline", metric),
        positive_figure(report.candidate, "candidate", metric),
    )


#: What is compared as measured, in words.
NAMES = {
    Metric.MACRO_F1: "macro F1",
    Metric.NEIGHBOUR_OVERLAP: "neighbour overlap",
    Metric.RANK_CORRELATION: "rank correlation",
}
_SIZES = (Metric.SIZE, Metric.PARAMETERS, Metric.MACS)
_LATENCIES = (Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.LATENCY_P99)

#: The one function that judges a metric by a bound; a test compares it with the bounds that the API allows.
CHECKS: dict[tuple[Metric, str], Callable[[Report, Gate, float], Finding]] = {
    (Metric.ACCURACY, "max_regression"): accuracy_regression,
    (Metric.ACCURACY, "min"): accuracy_minimum,
    (Metric.MACRO_F1, "max_regression"): macro_f1_regression,
    **{(metric, "min"): quality_minimum for metric in NAMES},
    (Metric.RMSE, "max_regression"): error_regression,
    (Metric.MAE, "max_regression"): error_regression,
    (Metric.RMSE, "max_error"): error_maximum,
    (Metric.MAE, "max_error"): error_maximum,
    (Metric.R2, "max_regression"): r2_regression,
    (Metric.R2, "min"): r2_minimum,
    (Metric.COSINE_SIMILARITY, "min"): similarity_minimum,
    **{(metric, "min_reduction"): reduction for metric in _SIZES},
    **{(metric, "max_ratio"): size_ratio for metric in _SIZES},
    **{(metric, "max_ratio"): latency_ratio for metric in _LATENCIES},
    **{(metric, "max"): latency_maximum for metric in _LATENCIES},
    (Metric.THROUGHPUT, "min_ratio"): throughput_ratio,
}
