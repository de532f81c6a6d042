"""The gate: a pure function from a report and the limits to a verdict; the operator and `plimsoll run` share it.

Pass needs proof that a limit is kept, Fail needs proof that it is broken; all else, and all that is missing, is
Inconclusive. A check says how many samples would decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from plimsoll_api.costs import latency_maximum, latency_ratio, reduction, size_ratio, throughput_ratio
from plimsoll_api.findings import Finding
from plimsoll_api.gates import Gate, Metric
from plimsoll_api.means import error_maximum, error_regression, r2_minimum, r2_regression, similarity_minimum
from plimsoll_api.measured import MissingError
from plimsoll_api.model import Fraction
from plimsoll_api.report import Report
from plimsoll_api.rules import to_camel
from plimsoll_api.shares import (
    accuracy_minimum,
    accuracy_regression,
    macro_f1_regression,
    not_finite_maximum,
    quality_minimum,
)
from plimsoll_api.verdict import Check, Judgement, Verdict

_MAX_OBSERVED, _MAX_MESSAGE, _MAX_SUMMARY = 128, 512, 1024


#: What holds of every candidate, unless the gates limit the same metric otherwise.
ALWAYS = (Gate(metric=Metric.NOT_FINITE, max_share=Fraction("0")),)


def judge(report: Report | None, gates: Sequence[Gate], *, accept_baseline: bool = False) -> Judgement:
    """Return Fail if any check fails, else Inconclusive if any is or there is none, else Pass.

    Answers that are not finite are judged without a limit, too; that check is listed where it does not pass. While the
    baseline is in doubt and not accepted, nothing else is judged: a candidate as good as a wrong baseline is wrong.
    """
    doubts = report.doubts if report is not None and not accept_baseline else []
    judged = [gate for gate in gates if not doubts or gate.metric is Metric.NOT_FINITE]
    checks = [_check(report, gate, name) for gate, name in zip(judged, _names(judged), strict=True)]
    if gates and report is not None:
        implied = [gate for gate in ALWAYS if gate.metric not in {given.metric for given in gates}]
        unsaid = [_check(report, gate, name) for gate, name in zip(implied, _names(implied), strict=True)]
        checks = [*checks, *(check for check in unsaid if check.verdict is not Verdict.PASS)]
    if doubts:
        checks = [_doubt(doubts), *checks]
    found = {check.verdict for check in checks}
    verdict = next(
        (verdict for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE) if verdict in found),
        Verdict.PASS if checks else Verdict.INCONCLUSIVE,
    )
    return Judgement(verdict=verdict, message=_summary(verdict, checks), checks=checks)


def _doubt(doubts: Sequence[str]) -> Check:
    advice = "correct the model or the data, or set evaluation.acceptBaseline: true"
    return Check(
        name="baseline",
        verdict=Verdict.INCONCLUSIVE,
        observed=_cut(doubts[0], _MAX_OBSERVED),
        bound="not in doubt",
        message=f"{_cut('; '.join(doubts), _MAX_MESSAGE - len(advice) - 2)}; {advice}",
    )


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


_SIZES = (Metric.SIZE, Metric.PARAMETERS, Metric.MACS)
_LATENCIES = (Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.LATENCY_P99)

#: The one function that judges a metric by a bound; a test compares it with the bounds that the API allows.
CHECKS: dict[tuple[Metric, str], Callable[[Report, Gate, float], Finding]] = {
    (Metric.ACCURACY, "max_regression"): accuracy_regression,
    (Metric.ACCURACY, "min"): accuracy_minimum,
    (Metric.MACRO_F1, "max_regression"): macro_f1_regression,
    (Metric.MACRO_F1, "min"): quality_minimum,
    (Metric.RMSE, "max_regression"): error_regression,
    (Metric.MAE, "max_regression"): error_regression,
    (Metric.RMSE, "max_error"): error_maximum,
    (Metric.MAE, "max_error"): error_maximum,
    (Metric.R2, "max_regression"): r2_regression,
    (Metric.R2, "min"): r2_minimum,
    (Metric.COSINE_SIMILARITY, "min"): similarity_minimum,
    (Metric.NEIGHBOUR_OVERLAP, "min"): quality_minimum,
    (Metric.RANK_CORRELATION, "min"): quality_minimum,
    (Metric.NOT_FINITE, "max_share"): not_finite_maximum,
    **{(metric, "min_reduction"): reduction for metric in _SIZES},
    **{(metric, "max_ratio"): size_ratio for metric in _SIZES},
    **{(metric, "max_ratio"): latency_ratio for metric in _LATENCIES},
    **{(metric, "max"): latency_maximum for metric in _LATENCIES},
    (Metric.THROUGHPUT, "min_ratio"): throughput_ratio,
}
