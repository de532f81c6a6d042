"""What a model costs in the gate: sizes and times at their exact boundaries, and what is missing of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.api.reports import GATES, check, gate, latency, models, passing, ratio, report, verdict

from plimsoll_api.gates import Metric
from plimsoll_api.report import Report
from plimsoll_api.verdict import Verdict

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


@pytest.mark.parametrize("metric", ["size", "parameters", "macs"])
@pytest.mark.parametrize(
    ("figures", "limit", "expected"),
    [
        ((1000, 280), {"min_reduction": "72%"}, PASS),
        ((1000, 281), {"min_reduction": "72%"}, FAIL),
        ((1000, 279), {"min_reduction": "72%"}, PASS),
        ((1000, 1001), {"min_reduction": "0%"}, FAIL),
        ((1000, 1000), {"min_reduction": "0%"}, PASS),
        ((1000, 300), {"max_ratio": "0.3"}, PASS),
        ((1000, 301), {"max_ratio": "0.3"}, FAIL),
        ((1000, 299), {"max_ratio": "0.3"}, PASS),
        ((1000, 0), {"max_ratio": "0.3"}, INCONCLUSIVE),
        ((1000, -5), {"min_reduction": "10%"}, INCONCLUSIVE),
        ((0, 1), {"min_reduction": "10%"}, INCONCLUSIVE),
        ((-1000, 5), {"max_ratio": "0.3"}, INCONCLUSIVE),
        ((1, 1), {"max_ratio": "1"}, PASS),
    ],
)
def test_sizes(metric: str, figures: tuple[int, int], limit: dict[str, str], expected: Verdict) -> None:
    field = {"size": "size_bytes"}.get(metric, metric)
    assert verdict(models(**{field: figures}), gate(metric, **limit)) is expected


def test_each_size_is_judged_by_its_own_figures() -> None:
    measured = models(size_bytes=(1000, 900), parameters=(1000, 500), macs=(1000, 100))
    observed = {
        name: check(measured, gate(name, min_reduction="1%")).observed for name in ("size", "parameters", "macs")
    }
    assert observed == {"size": "10%", "parameters": "50%", "macs": "90%"}


LATENCIES = (Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.LATENCY_P99)
#: Lower bound, value and upper bound of a ratio, and what follows where it may be 1 at most, or must be 1.5 at least.
AT_MOST_ONE = [
    (0.9, 0.95, 1.0, PASS),
    (0.9, 0.95, 1.0000001, INCONCLUSIVE),
    (1.0, 1.05, 1.1, INCONCLUSIVE),
    (1.0000001, 1.05, 1.1, FAIL),
    (0.5, 0.5, 0.5, PASS),
    (0.96, 0.95, 1.0, PASS),
    (0.9, 1.01, 1.0, PASS),
    (0.9, 0.9, 0.8, INCONCLUSIVE),
    (0.4, 0.0, 0.9, INCONCLUSIVE),
    (0.4, -0.5, 0.9, INCONCLUSIVE),
    (0.0, 0.5, 0.9, INCONCLUSIVE),
    (-0.1, 0.5, 0.9, INCONCLUSIVE),
    (math.nan, 0.5, 0.9, INCONCLUSIVE),
    (0.4, math.nan, 0.9, INCONCLUSIVE),
    (0.4, 0.5, math.nan, INCONCLUSIVE),
    (0.4, 0.5, math.inf, INCONCLUSIVE),
]
AT_LEAST_ONE_AND_A_HALF = [
    (1.5, 1.6, 1.7, PASS),
    (1.4999, 1.6, 1.7, INCONCLUSIVE),
    (1.3, 1.4, 1.5, INCONCLUSIVE),
    (1.3, 1.4, 1.4999, FAIL),
    (math.nan, 1.6, 1.7, INCONCLUSIVE),
]


@pytest.mark.parametrize(
    ("metric", "limit", "row"),
    [
        *((one, {"max_ratio": "1.0"}, row) for one in LATENCIES for row in AT_MOST_ONE),
        *((Metric.THROUGHPUT, {"min_ratio": "1.5"}, row) for row in AT_LEAST_ONE_AND_A_HALF),
    ],
)
def test_a_ratio_is_judged_by_its_interval(
    metric: Metric, limit: dict[str, str], row: tuple[float, float, float, Verdict]
) -> None:
    low, value, high, expected = row
    measured = report(ratios=[ratio(metric, 1, value, low, high)])
    assert verdict(measured, gate(metric, **limit, batch_size=1)) is expected


def test_an_undecided_ratio_says_how_many_processes_would_decide() -> None:
    found = check(report(ratios=[ratio(Metric.LATENCY_P95, 1, 0.95, 0.8, 1.1)]), GATES[12])
    assert found.needed_samples == 88
    assert found.message.endswith("about 88 processes would decide, 6 were measured")


@pytest.mark.parametrize(("metric", "least"), [("latencyP95", 20), ("latencyP99", 100)])
def test_a_percentile_of_too_few_runs_is_not_judged_and_says_how_many_it_needs(metric: str, least: int) -> None:
    parts = passing()
    few = latency(1, 0.0005, 2000) | {"p95_seconds": None, "p99_seconds": None, "runs": 6 * 14}
    measured = report(
        candidate=parts["candidate"] | {"latency": [few]},
        ratios=[one for one in parts["ratios"] if one["metric"] not in (Metric.LATENCY_P95, Metric.LATENCY_P99)],
    )
    for limit in (gate(metric, max="1s", batch_size=1), gate(metric, max_ratio="2", batch_size=1)):
        found = check(measured, limit)
        assert found.verdict is INCONCLUSIVE
        assert f"{metric} needs {least} runs in each process, 14 were measured at batch size 1" in found.message


@pytest.mark.parametrize(
    "ratios",
    [
        [],
        [ratio(Metric.LATENCY_P50, 1, 0.5, 0.4, 0.6)],
        [ratio(Metric.LATENCY_P95, 32, 0.5, 0.4, 0.6)],
        [ratio(Metric.LATENCY_P95, 1, 0.5, 0.4, 0.6)] * 2,
        [ratio(Metric.LATENCY_P95, 1, 0.5, 0.4, 0.6) | {"processes": 1}],
    ],
)
def test_a_ratio_that_is_missing_doubled_or_unmeasured_is_inconclusive(ratios: list[dict[str, Any]]) -> None:
    assert verdict(report(ratios=ratios), gate("latencyP95", max_ratio="1.0", batch_size=1)) is INCONCLUSIVE


@pytest.mark.parametrize(
    ("limit", "expected"), [("0.55ms", PASS), ("0.5501ms", PASS), ("0.5499ms", FAIL), ("550us", PASS), ("1s", PASS)]
)
def test_the_longest_latency_at_its_boundary(limit: str, expected: Verdict) -> None:
    parts = passing()["candidate"] | {"latency": [latency(1, 0.0005, 2000) | {"p95_seconds": 0.00055}]}
    assert verdict(report(candidate=parts), gate("latencyP95", max=limit, batch_size=1)) is expected


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
@pytest.mark.parametrize("metric", ["latencyP50", "latencyP95", "latencyP99"])
def test_an_impossible_latency_never_passes(metric: str, value: float) -> None:
    field = {"latencyP50": "p50_seconds", "latencyP95": "p95_seconds", "latencyP99": "p99_seconds"}[metric]
    parts = passing()["candidate"] | {"latency": [latency(1, 0.0005, 2000) | {field: value}]}
    assert verdict(report(candidate=parts), gate(metric, max="1h", batch_size=1)) is INCONCLUSIVE


def test_a_latency_of_no_run_never_passes() -> None:
    parts = passing()["candidate"] | {"latency": [latency(1, 0.0005, 2000) | {"runs": 0}]}
    assert verdict(report(candidate=parts), gate("latencyP50", max="1h", batch_size=1)) is INCONCLUSIVE


def test_each_percentile_is_judged_by_its_own_figure() -> None:
    observed = {
        name: check(report(), gate(name, max="1s")).observed for name in ("latencyP50", "latencyP95", "latencyP99")
    }
    assert observed == {"latencyP50": "500us", "latencyP95": "550us", "latencyP99": "650us"}


def test_a_gate_without_a_batch_size_means_the_first_measured() -> None:
    parts = passing()
    parts["ratios"] = [ratio(Metric.LATENCY_P95, 1, 0.5, 0.4, 0.6), ratio(Metric.LATENCY_P95, 32, 2.0, 1.9, 2.1)]
    measured = Report.model_validate(parts)
    assert verdict(measured, gate("latencyP95", max_ratio="1.0")) is PASS
    assert verdict(measured, gate("latencyP95", max_ratio="1.0", batch_size=32)) is FAIL


def test_without_a_batch_size_a_report_at_odds_with_itself_is_inconclusive() -> None:
    parts = passing()
    del parts["candidate"]["latency"][0]
    found = check(Report.model_validate(parts), gate("latencyP95", max_ratio="1.0"))
    assert found.verdict is INCONCLUSIVE
    assert "first batch size" in found.message


def test_one_run_and_two_processes_are_measurements() -> None:
    parts = passing()["candidate"] | {"latency": [latency(1, 0.0005, 2000) | {"runs": 1}]}
    assert verdict(report(candidate=parts), gate("latencyP50", max="1ms", batch_size=1)) is PASS
    once = [ratio(Metric.LATENCY_P50, 1, 0.5, 0.4, 0.6) | {"processes": 2}]
    assert verdict(report(ratios=once), gate("latencyP50", max_ratio="1", batch_size=1)) is PASS


@pytest.mark.parametrize("role", ["baseline", "candidate"])
@pytest.mark.parametrize("latencies", [[], [latency(32, 0.01, 3200), latency(1, 0.001, 1000)]], ids=["none", "turned"])
def test_each_model_must_agree_on_the_first_batch_size(role: str, latencies: list[dict[str, Any]]) -> None:
    measured = report(**{role: passing()[role] | {"latency": latencies}})
    assert verdict(measured, gate("latencyP95", max_ratio="1.0")) is INCONCLUSIVE
    assert verdict(measured, gate("latencyP95", max_ratio="1.0", batch_size=1)) is PASS


def test_the_ratios_must_agree_on_the_first_batch_size() -> None:
    turned = [ratio(Metric.LATENCY_P95, size, 0.5, 0.4, 0.6) for size in (32, 1)]
    assert verdict(report(ratios=turned), gate("latencyP95", max_ratio="1.0")) is INCONCLUSIVE


def test_a_baseline_without_figures_leaves_the_first_batch_size_open() -> None:
    assert "no figures of baseline and candidate" in check(report(baseline=None), gate("latencyP95", max="1s")).message


@pytest.mark.parametrize("role", ["baseline", "candidate"])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_without_one_model_a_latency_is_inconclusive(role: str, batch_size: int | None) -> None:
    measured = report(**{role: None})
    expected = PASS if role == "baseline" and batch_size else INCONCLUSIVE
    assert verdict(measured, gate("latencyP95", max="1s", batch_size=batch_size)) is expected


def test_an_impossible_interval_is_said_with_its_figures() -> None:
    measured = report(ratios=[ratio(Metric.LATENCY_P95, 1, 0.5, 0.9, 0.4)])
    message = check(measured, gate("latencyP95", max_ratio="1", batch_size=1)).message
    assert "is 0.5 within 0.9 and 0.4 after 6 processes, which cannot be" in message
