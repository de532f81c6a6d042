"""The gate's promise: missing or impossible data never passes, and at the margin at most 5% are released."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.api.reports import GATES, gate, passing, with_flips

from plimsoll_api.gate import judge
from plimsoll_api.gates import TIMED, Gate
from plimsoll_api.report import Report
from plimsoll_api.statistics import PairedCounts, samples_to_decide_difference
from plimsoll_api.verdict import Verdict

#: What each gate rests on: with any of these gone, it must not pass.
LATENCY = {"latencyP50": "p50_seconds", "latencyP95": "p95_seconds", "latencyP99": "p99_seconds"}


def needs(limit: Gate) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths into the passing report that a gate needs."""
    if limit.metric == "accuracy":
        yield from [("flips",), ("data", "samples")]
        yield from [
            ("flips", name) for name in ("samples", "both_right", "right_to_wrong", "wrong_to_right", "both_wrong")
        ]
        return
    if limit.metric == "notFinite":
        yield from [("candidate",), ("candidate", "not_finite"), ("data", "samples")]
        return
    timed = limit.metric in TIMED
    if not (timed and limit.bound_name != "max" and limit.batch_size is not None):
        yield ("candidate",)
    if limit.batch_size is None and (timed or limit.bound_name != "min"):
        yield ("baseline",)
    if limit.metric in ("macroF1", "size", "parameters", "macs"):
        yield ("candidate", {"macroF1": "macro_f1", "size": "size_bytes"}.get(limit.metric, limit.metric.value))
    elif limit.bound_name == "max":
        index = 1 if limit.batch_size == 32 else 0
        yield from [("candidate", "latency"), ("candidate", "latency", index)]
        yield ("candidate", "latency", index, LATENCY[limit.metric])
    else:
        index = next(
            index
            for index, found in enumerate(passing()["ratios"])
            if found["metric"] == limit.metric and found["batch_size"] == (limit.batch_size or 1)
        )
        yield from [("ratios",), ("ratios", index)]
        yield from [("ratios", index, name) for name in ("ratio", "low", "high", "processes", "batch_size", "metric")]


def without(path: tuple[str | int, ...]) -> dict[str, Any]:
    parts = copy.deepcopy(passing())
    place: Any = parts
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return parts


@pytest.mark.parametrize(("limit", "path"), [(limit, path) for limit in GATES for path in needs(limit)], ids=str)
def test_a_gate_does_not_pass_without_what_it_needs(limit: Gate, path: tuple[str | int, ...]) -> None:
    try:
        report = Report.model_validate(without(path))
    except ValidationError:
        return
    assert judge(report, [limit]).verdict is Verdict.INCONCLUSIVE


NUMBERS = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0, -1e-9, 1e308]), st.floats(allow_nan=True)
)


@settings(max_examples=400)
@given(st.data())
def test_a_figure_that_is_no_possible_number_never_passes(data: st.DataObject) -> None:
    limit = data.draw(st.sampled_from([limit for limit in GATES if limit.metric != "accuracy"]))
    path = data.draw(
        st.sampled_from([path for path in needs(limit) if isinstance(_at(passing(), path), float)] or [()])
    )
    if not path:
        return
    impossible = data.draw(st.sampled_from([math.nan, math.inf, -math.inf, -1.0, -1e-300]))
    parts = copy.deepcopy(passing())
    _at(parts, path[:-1])[path[-1]] = impossible
    assert judge(Report.model_validate(parts), [limit]).verdict is not Verdict.PASS


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@settings(max_examples=300)
@given(st.data())
def test_the_gate_answers_every_report_it_can_be_given(data: st.DataObject) -> None:
    """No figure makes it raise, and a message fits its field."""
    parts = copy.deepcopy(passing())
    for role in ("baseline", "candidate"):
        for name in ("accuracy", "macro_f1"):
            parts[role][name] = data.draw(NUMBERS)
        for name in ("size_bytes", "parameters", "macs", "not_finite"):
            parts[role][name] = data.draw(st.integers(-10, 10**18))
    for found in parts["ratios"]:
        found |= {name: data.draw(NUMBERS) for name in ("ratio", "low", "high")}
    cells = {name: data.draw(st.integers(-1, 10**7)) for name in ("both_right", "right_to_wrong", "wrong_to_right")}
    samples = sum(cells.values())
    parts["flips"] |= cells | {"both_wrong": 0, "samples": samples}
    parts["data"]["samples"] = samples
    for check in judge(Report.model_validate(parts), GATES).checks:
        assert check.message
        assert len(check.message) <= 512


CELLS = st.tuples(st.integers(0, 5000), st.integers(0, 400), st.integers(0, 400), st.integers(0, 1000))


@given(CELLS, st.floats(0.001, 0.2), st.floats(0.0, 0.2))
def test_a_wider_limit_never_turns_a_pass_into_anything_else(
    cells: tuple[int, int, int, int], margin: float, more: float
) -> None:
    if sum(cells) == 0:
        return
    tight = judge(with_flips(*cells), [gate("accuracy", max_regression=f"{margin:.6f}")]).verdict
    wide = judge(with_flips(*cells), [gate("accuracy", max_regression=f"{margin + more:.6f}")]).verdict
    order = [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS]
    assert order.index(wide) >= order.index(tight)


@given(CELLS)
def test_one_more_sample_that_only_the_baseline_gets_right_never_helps(cells: tuple[int, int, int, int]) -> None:
    both, candidate, baseline, neither = cells
    if neither == 0:
        return
    limit = [gate("accuracy", max_regression="2%")]
    before = judge(with_flips(both, candidate, baseline, neither), limit).verdict
    after = judge(with_flips(both, candidate, baseline + 1, neither - 1), limit).verdict
    assert not (before is not Verdict.PASS and after is Verdict.PASS)


def simulated(chance: random.Random, samples: int, lost: float, gained: float, accuracy: float) -> tuple[int, ...]:
    """Draw the four counts; `lost` and `gained` are the true shares of flips, `accuracy` the baseline's."""
    shares = (accuracy - lost, gained, lost, 1 - accuracy - gained)
    drawn = chance.choices(range(4), weights=shares, k=samples)
    return tuple(drawn.count(cell) for cell in range(4))


@pytest.mark.parametrize(("samples", "flips", "margin"), [(300, 0.06, 0.02), (1000, 0.05, 0.02), (500, 0.12, 0.05)])
def test_a_candidate_at_the_margin_is_released_in_at_most_five_percent(
    samples: int, flips: float, margin: float
) -> None:
    chance = random.Random(4711)  # noqa: S311
    limit = [gate("accuracy", max_regression=str(margin))]
    tries = 600
    lost, gained = (flips + margin) / 2, (flips - margin) / 2
    passed = sum(
        judge(with_flips(*simulated(chance, samples, lost, gained, 0.95)), limit).verdict is Verdict.PASS
        for _ in range(tries)
    )
    # Three standard errors above 5%: a true rate of 5% is refused by luck once in a thousand.
    assert passed / tries <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tries)


def test_bad_candidates_at_twice_the_margin_are_not_released() -> None:
    chance = random.Random(4711)  # noqa: S311
    limit = [gate("accuracy", max_regression="2%")]
    verdicts = [judge(with_flips(*simulated(chance, 1000, 0.05, 0.01, 0.95)), limit).verdict for _ in range(100)]
    assert verdicts.count(Verdict.PASS) == 0


def test_a_harmless_candidate_passes_in_nine_of_ten_at_the_planned_number_of_samples() -> None:
    chance = random.Random(4711)  # noqa: S311
    limit = [gate("accuracy", max_regression="2%")]
    needed = samples_to_decide_difference(PairedCounts(925, 25, 25, 25), 0.02, 0.95)
    assert needed is not None
    verdicts = [judge(with_flips(*simulated(chance, needed, 0.025, 0.025, 0.95)), limit).verdict for _ in range(300)]
    assert verdicts.count(Verdict.PASS) / 300 >= 0.87
    assert verdicts.count(Verdict.FAIL) == 0
