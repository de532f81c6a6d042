"""The gate: how verdicts come together, in which order, and what people read."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.api.reports import GATES, check, gate, models, passing, report, verdict

from plimsoll_api.gate import CHECKS, judge
from plimsoll_api.gates import BOUNDS, Gate, Metric
from plimsoll_api.report import Report
from plimsoll_api.verdict import Verdict

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


def test_every_bound_of_the_api_has_its_function_and_no_other() -> None:
    assert set(CHECKS) == {
        (metric, bound) for metrics, bounds in BOUNDS.items() for metric in metrics for bound in bounds
    }
    assert {metric for metrics in BOUNDS for metric in metrics} == set(Metric)


def test_a_report_that_keeps_every_limit_passes() -> None:
    judgement = judge(report(), GATES)
    assert {found.name: found.message for found in judgement.checks if found.verdict is not PASS} == {}
    assert judgement.verdict is PASS
    assert judgement.message == "all 18 checks passed"


def test_one_check_says_that_it_passed() -> None:
    assert judge(report(), GATES[:1]).message == "the check passed"
    assert judge(report(), GATES[:2]).message == "all 2 checks passed"


# --- how verdicts come together


def test_no_gate_proves_nothing() -> None:
    judgement = judge(report(), [])
    assert judgement.verdict is INCONCLUSIVE
    assert judgement.checks == []
    assert "nothing is proved" in judgement.message


def test_no_report_is_inconclusive_for_every_gate() -> None:
    judgement = judge(None, GATES)
    assert judgement.verdict is INCONCLUSIVE
    assert {found.verdict for found in judgement.checks} == {INCONCLUSIVE}
    assert judgement.checks[0].message == "cannot be judged: there is no report"


FAILING = gate("size", max_ratio="0.01")
UNDECIDED = gate("accuracy", max_regression="0.1%")


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        ([GATES[0], UNDECIDED, FAILING], FAIL),
        ([FAILING, GATES[0]], FAIL),
        ([UNDECIDED, FAILING], FAIL),
        ([GATES[0], UNDECIDED], INCONCLUSIVE),
        ([UNDECIDED], INCONCLUSIVE),
        ([GATES[0], GATES[4]], PASS),
    ],
)
def test_fail_before_inconclusive_before_pass(gates: list[Gate], expected: Verdict) -> None:
    assert judge(report(), gates).verdict is expected


def test_checks_come_in_the_order_of_the_gates_under_names_of_their_own() -> None:
    names = [found.name for found in judge(report(), GATES).checks]
    assert names[0] == "accuracy-maxRegression"
    assert names[10] == "latencyP50-maxRatio"
    assert names[12] == "latencyP95-maxRatio-1"
    assert names[16] == "throughput-minRatio"
    assert len(set(names)) == len(GATES)
    assert names == [found.name for found in judge(None, GATES).checks]


def test_equal_gates_get_different_names() -> None:
    names = [found.name for found in judge(report(), [GATES[0], GATES[0]]).checks]
    assert names == ["accuracy-maxRegression", "accuracy-maxRegression.2"]


def test_the_message_names_the_checks_that_decide() -> None:
    message = judge(report(), [UNDECIDED, FAILING, GATES[0]]).message
    assert message.startswith("size-maxRatio: size 1,000,000 → 40,000: 0.04x, at most 0.01x is allowed")
    assert "accuracy" not in message


def test_a_message_of_many_checks_is_cut_to_its_length() -> None:
    assert len(judge(None, GATES * 2).message) <= 1024
    assert judge(None, GATES * 2).message.endswith("…")


# --- what is judged without a limit


@pytest.mark.parametrize(
    ("count", "limits", "expected"),
    [
        (0, [], PASS),
        (1, [], FAIL),
        (1, [gate("notFinite", max_share="0.05%")], PASS),
        (2, [gate("notFinite", max_share="0.05%")], FAIL),
        (2000, [gate("notFinite", max_share=1)], PASS),
        (2001, [gate("notFinite", max_share=1)], INCONCLUSIVE),
        (-1, [], INCONCLUSIVE),
        (None, [], INCONCLUSIVE),
    ],
)
def test_answers_that_are_not_finite_fail_unless_a_limit_allows_them(
    count: int | None, limits: list[Gate], expected: Verdict
) -> None:
    judgement = judge(models(not_finite=(0, count)), [GATES[0], *limits])
    assert judgement.verdict is expected
    assert len(judgement.checks) == (1 if count == 0 else 2)


def test_answers_that_are_not_finite_are_told_with_their_number() -> None:
    check = judge(models(not_finite=(100, 500)), GATES[:1]).checks[1]
    assert (check.name, check.bound, check.observed) == ("notFinite-maxShare", "maxShare 0", "500 of 2,000")
    assert check.message == "500 of 2,000 answers hold NaN or infinity (25%), at most 0% may"


def test_nothing_is_judged_by_a_baseline_in_doubt_until_it_is_accepted() -> None:
    doubted = report(doubts=["the baseline answers class 0 to every sample", "and more"])
    judgement = judge(doubted, GATES)
    assert judgement.verdict is INCONCLUSIVE
    assert [found.name for found in judgement.checks] == ["baseline", "notFinite-maxShare"]
    assert judgement.checks[0].message == (
        "the baseline answers class 0 to every sample; and more; correct the model or the data, or set "
        "evaluation.acceptBaseline: true"
    )
    assert judgement.message.startswith("baseline: the baseline answers class 0")
    assert judge(doubted, GATES, accept_baseline=True) == judge(report(), GATES)
    parts = passing()
    parts["candidate"]["not_finite"] = 3
    broken = Report.model_validate(parts | {"doubts": ["3 of the baseline's 2,000 answers hold NaN"]})
    assert judge(broken, GATES[:1]).verdict is FAIL
    assert len(judge(report(doubts=["x" * 900]), GATES).checks[0].message) <= 512


# --- macro F1: exact comparisons


@pytest.mark.parametrize(
    ("f1", "limit", "expected"),
    [
        ((0.95, 0.93), gate("macroF1", max_regression="2%"), PASS),
        ((0.95, 0.9299), gate("macroF1", max_regression="2%"), FAIL),
        ((0.95, 0.9301), gate("macroF1", max_regression="2%"), PASS),
        ((0.90, 0.99), gate("macroF1", max_regression=0), PASS),
        ((0.95, 0.93), gate("macroF1", min="93%"), PASS),
        ((0.95, 0.9299), gate("macroF1", min="93%"), FAIL),
        ((0.95, math.nan), gate("macroF1", min="0%"), INCONCLUSIVE),
        ((math.nan, 0.95), gate("macroF1", max_regression=1), INCONCLUSIVE),
        ((0.95, math.nan), gate("macroF1", max_regression=1), INCONCLUSIVE),
        ((0.95, math.inf), gate("macroF1", min="1%"), INCONCLUSIVE),
        ((0.95, 1.01), gate("macroF1", min="1%"), INCONCLUSIVE),
        ((0.95, -0.01), gate("macroF1", max_regression=1), INCONCLUSIVE),
        ((math.inf, 0.5), gate("macroF1", max_regression=1), INCONCLUSIVE),
        ((0.95, 0.0), gate("macroF1", min=0), PASS),
        ((1.0, 1.0), gate("macroF1", min=1), PASS),
    ],
)
def test_macro_f1(f1: tuple[float, float], limit: Gate, expected: Verdict) -> None:
    assert verdict(models(macro_f1=f1), limit) is expected


# --- what people read


def test_bounds_are_shown_as_they_were_written() -> None:
    bounds = [found.bound for found in judge(report(), GATES).checks]
    assert bounds[0] == "maxRegression 2%"
    assert bounds[5] == "maxRatio 0.05"
    assert bounds[11] == "max 1ms"


@pytest.mark.parametrize(
    ("limit", "observed", "says"),
    [
        (
            gate("accuracy", min="96%"),
            "97.4%",
            "accuracy 97.4% of 2,000 samples; 95% sure that it is at least 96.75%, the least allowed is 96%",
        ),
        (
            gate("accuracy", min="99%"),
            "97.4%",
            "accuracy 97.4% of 2,000 samples; 95% sure that it is below 97.92%, the least allowed is 99%",
        ),
        (
            gate("macroF1", max_regression="1%"),
            "-0.3 points",
            "macro F1 97.5% → 97.2% (-0.3 points), the limit is a loss of 1 point",
        ),
        (gate("macroF1", min="97%"), "97.2%", "macro F1 is 97.2%, the least allowed is 97%"),
        (
            gate("size", min_reduction="95%"),
            "96%",
            "size 1,000,000 → 40,000: smaller by 96%, the least allowed is 95%",
        ),
        (gate("macs", max_ratio="0.05"), "0.04x", "macs 10,000,000 → 400,000: 0.04x, at most 0.05x is allowed"),
        (
            gate("latencyP95", max_ratio="1.0", batch_size=32),
            "0.5x",
            "latencyP95 at batch size 32 is 0.5x the baseline's (95% interval 0.48x to 0.53x), at most 1x is allowed",
        ),
        (
            gate("throughput", min_ratio="1.5"),
            "2x",
            "throughput at batch size 1 is 2x the baseline's (95% interval 1.9x to 2.1x), at least 1.5x is required",
        ),
        (gate("latencyP99", max="1ms"), "650us", "latencyP99 is 650us at batch size 1, at most 1ms is allowed"),
    ],
)
def test_what_people_read(limit: Gate, observed: str, says: str) -> None:
    found = check(report(), limit)
    assert (found.observed, found.message) == (observed, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"flips": None}, "cannot be judged: the report has no flip counts"),
        (
            {"flips": passing()["flips"] | {"both_wrong": 39}},
            "cannot be judged: the flip counts 1,940, 8, 12, 39 are not those of 2,000 samples",
        ),
    ],
)
def test_what_is_missing_is_said(change: dict[str, Any], says: str) -> None:
    assert check(report(**change), GATES[0]).message == says


def test_a_text_is_cut_only_when_it_is_too_long() -> None:
    huge = report(baseline=passing()["baseline"] | {"size_bytes": 10**150})
    found = check(huge, gate("size", max_ratio="1"))
    assert found.verdict is PASS
    assert len(found.message) < 512
    found = check(report(baseline=passing()["baseline"] | {"size_bytes": 10**300}), gate("size", max_ratio="1"))
    assert len(found.message) <= 512
