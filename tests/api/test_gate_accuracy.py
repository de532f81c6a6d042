"""Accuracy in the gate: the paired limit and the least allowed, at their exact boundaries and in their sentences."""

from __future__ import annotations

import math

import pytest
from tests.api.reports import GATES, check, gate, passing, report, verdict, with_flips

from plimsoll_api.gates import Gate
from plimsoll_api.shares import accuracy_minimum, accuracy_regression
from plimsoll_api.statistics import PairedCounts, newcombe_paired_interval, wilson_interval, z_score
from plimsoll_api.verdict import Verdict

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


# --- accuracy: paired non-inferiority


def limits(*cells: int, confidence: float = 0.95) -> tuple[float, float]:
    return newcombe_paired_interval(PairedCounts(*cells), z_score(confidence))


def written(value: float, nudge: float = 0.0) -> str:
    return f"{value + nudge:.12f}"


#: Candidate only right, baseline only right: a small loss among 1,000 samples.
CELLS = (950, 6, 12, 32)


def test_accuracy_passes_where_the_whole_interval_is_above_the_limit_and_not_at_it() -> None:
    low, _ = limits(*CELLS)
    measured = with_flips(*CELLS)
    assert verdict(measured, gate("accuracy", max_regression=written(-low, 1e-11))) is PASS
    assert verdict(measured, gate("accuracy", max_regression=written(-low, -1e-11))) is INCONCLUSIVE


def test_accuracy_exactly_at_the_limit_is_neither_proved_kept_nor_broken() -> None:
    low, high = limits(*CELLS)
    measured = with_flips(*CELLS)
    anything = gate("accuracy", max_regression="1%")
    assert accuracy_regression(measured, anything, -low).verdict is INCONCLUSIVE
    assert accuracy_regression(measured, anything, math.nextafter(-low, 1)).verdict is PASS
    assert accuracy_regression(measured, anything, -high).verdict is INCONCLUSIVE
    assert accuracy_regression(measured, anything, math.nextafter(-high, -1)).verdict is FAIL


def test_accuracy_fails_where_the_whole_interval_is_below_the_limit_and_not_at_it() -> None:
    cells = (900, 2, 60, 38)
    _, high = limits(*cells)
    measured = with_flips(*cells)
    assert high < 0
    assert verdict(measured, gate("accuracy", max_regression=written(-high, -1e-11))) is FAIL
    assert verdict(measured, gate("accuracy", max_regression=written(-high, 1e-11))) is INCONCLUSIVE


def test_a_regression_beyond_the_limit_that_may_be_luck_is_inconclusive_not_fail() -> None:
    measured = with_flips(92, 1, 5, 2)
    assert verdict(measured, gate("accuracy", max_regression="3%")) is INCONCLUSIVE


def test_identical_answers_on_too_few_samples_are_inconclusive() -> None:
    found = check(with_flips(98, 0, 0, 2), gate("accuracy", max_regression="2%"))
    assert found.verdict is INCONCLUSIVE
    assert found.needed_samples == 152
    assert "about 152 samples would decide, 100 were measured" in found.message


def test_the_confidence_is_the_gates_own() -> None:
    measured = with_flips(*CELLS)
    margin = written(-limits(*CELLS, confidence=0.95)[0], 1e-11)
    assert verdict(measured, gate("accuracy", max_regression=margin)) is PASS
    assert verdict(measured, gate("accuracy", max_regression=margin, confidence="95%")) is PASS
    assert verdict(measured, gate("accuracy", max_regression=margin, confidence="96%")) is INCONCLUSIVE
    assert verdict(measured, gate("accuracy", max_regression=margin, confidence="90%")) is PASS


def test_a_better_candidate_passes_a_limit_of_zero_when_it_is_proved_better() -> None:
    assert verdict(with_flips(900, 60, 2, 38), gate("accuracy", max_regression=0)) is PASS
    assert verdict(with_flips(900, 2, 60, 38), gate("accuracy", max_regression=0)) is FAIL
    assert verdict(with_flips(998, 0, 0, 2), gate("accuracy", max_regression=0)) is INCONCLUSIVE


def test_a_difference_at_the_limit_says_that_no_number_of_samples_decides() -> None:
    found = check(with_flips(950, 0, 20, 30), gate("accuracy", max_regression="2%"))
    assert found.verdict is INCONCLUSIVE
    assert found.needed_samples is None
    assert "too close to the limit for any reasonable number of samples" in found.message


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (
            (8760, 20, 42, 178),
            "accuracy 97.8% → 97.56% (-0.24 points); "
            "95% sure that the loss is below 0.39 points, the limit is 2 points",
        ),
        (
            (7000, 20, 1042, 938),
            "accuracy 89.36% → 78% (-11.36 points); 95% sure that the loss is above 10.8 points, the limit is 2 points",
        ),
        (
            (2900, 5, 65, 30),
            "accuracy 98.83% → 96.83% (-2 points); the loss may be 1.56 points to 2.49 points, the limit is 2 points; "
            "too close to the limit for any reasonable number of samples to decide",
        ),
        (
            (98, 0, 0, 2),
            "accuracy 98% → 98% (0 points); anything is possible up to a loss of 3 points, the limit is 2 points; "
            "about 152 samples would decide, 100 were measured",
        ),
        (
            (9000, 600, 20, 380),
            "accuracy 90.2% → 96% (+5.8 points); 95% sure that there is no loss, the limit is 2 points",
        ),
    ],
)
def test_accuracy_in_a_sentence(cells: tuple[int, int, int, int], says: str) -> None:
    assert check(with_flips(*cells), gate("accuracy", max_regression="2%")).message == says


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 2001},
        {"samples": 0},
        {"both_right": -1},
        {"right_to_wrong": -12},
        {"right_to_wrong": -20, "both_right": 1972},
        {"both_right": 0, "right_to_wrong": 0, "wrong_to_right": 0, "both_wrong": 0, "samples": 0},
    ],
)
@pytest.mark.parametrize("limit", [gate("accuracy", max_regression="100%"), gate("accuracy", min="0%")], ids=str)
def test_flips_that_do_not_add_up_never_pass(change: dict[str, int], limit: Gate) -> None:
    measured = report(flips=passing()["flips"] | change)
    assert verdict(measured, limit) is INCONCLUSIVE


def test_flips_of_a_part_of_the_data_never_pass() -> None:
    measured = report(data=passing()["data"] | {"samples": 4000})
    assert "2000 of the data's 4000 samples were compared" in check(measured, GATES[0]).message
    assert verdict(measured, GATES[0]) is INCONCLUSIVE


# --- accuracy: the candidate's own


def test_the_least_accuracy_at_its_boundaries() -> None:
    low, high = wilson_interval(950, 1000, z_score(0.95))
    measured = with_flips(940, 10, 5, 45)
    assert verdict(measured, gate("accuracy", min=written(low, -1e-11))) is PASS
    assert verdict(measured, gate("accuracy", min=written(low, 1e-11))) is INCONCLUSIVE
    assert verdict(measured, gate("accuracy", min=written(high, -1e-11))) is INCONCLUSIVE
    assert verdict(measured, gate("accuracy", min=written(high, 1e-11))) is FAIL


def test_an_accuracy_whose_interval_touches_the_least_allowed() -> None:
    low, high = wilson_interval(950, 1000, z_score(0.95))
    measured, anything = with_flips(940, 10, 5, 45), gate("accuracy", min="1%")
    assert accuracy_minimum(measured, anything, low).verdict is PASS
    assert accuracy_minimum(measured, anything, math.nextafter(low, 1)).verdict is INCONCLUSIVE
    assert accuracy_minimum(measured, anything, high).verdict is INCONCLUSIVE
    assert accuracy_minimum(measured, anything, math.nextafter(high, 1)).verdict is FAIL


def test_the_least_accuracy_says_how_many_samples_would_decide() -> None:
    found = check(with_flips(94, 0, 0, 6), gate("accuracy", min="90%"))
    assert found.verdict is INCONCLUSIVE
    assert found.needed_samples is not None
    assert found.needed_samples > 100
    assert "the least allowed is 90%" in found.message
    assert "samples would decide" in found.message


def test_no_loss_and_the_smallest_loss_are_said_differently() -> None:
    assert "there is no loss" in check(with_flips(900, 60, 2, 38), gate("accuracy", max_regression="2%")).message
    assert "the loss is below" in check(with_flips(9500, 30, 30, 440), gate("accuracy", max_regression="2%")).message


def test_accuracies_of_both_models_are_told_from_the_flips() -> None:
    message = check(with_flips(80, 15, 5, 0), gate("accuracy", max_regression="2%")).message
    assert message.startswith("accuracy 85% → 95% (+10 points)")


def test_a_confidence_is_never_rounded_up_to_certainty() -> None:
    found = check(with_flips(99000, 30, 30, 940), gate("accuracy", max_regression="2%", confidence="99.999%"))
    assert "; 99.999% sure that the loss is below" in found.message


def test_one_sample_is_measured_but_decides_nothing() -> None:
    found = check(with_flips(1, 0, 0, 0), gate("accuracy", max_regression="2%"))
    assert found.verdict is INCONCLUSIVE
    assert found.message.startswith("accuracy 100% → 100%")
