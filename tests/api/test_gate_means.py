"""Gates of regression and of embeddings: exact boundaries, what is missing, and how often a bad model is released."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import pytest
from pydantic import ValidationError
from scipy.stats import t as student
from tests.api.reports import check, gate, passing, verdict

from plimsoll_api.gates import Gate
from plimsoll_api.report import Report
from plimsoll_api.statistics import mean_interval, t_score
from plimsoll_api.verdict import Verdict

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
Numbers = list[float]


def moments(*numbers: Numbers) -> dict[str, Any]:
    """Return the moments of numbers, each with one entry a sample, by plain loops."""
    count = len(numbers[0])
    means = [sum(one) / count for one in numbers]
    away = [[value - mean for value in one] for one, mean in zip(numbers, means, strict=True)]

    def mean_product(*parts: Numbers) -> float:
        return sum(map(math.prod, zip(*parts, strict=True))) / count

    return {
        "samples": count,
        "means": means,
        "covariances": [[mean_product(a, b) * count / (count - 1) for b in away] for a in away],
        "thirds": [[[mean_product(a, b, c) for c in away] for b in away] for a in away],
    }


def regression(baseline: Numbers, candidate: Numbers, away: Numbers | None = None) -> dict[str, Any]:
    """Return a report of errors; `away` are the distances of the labels from their mean."""
    parts = passing()
    del parts["flips"]
    squares = [[value**2 for value in one] for one in (baseline, candidate)]
    errors: dict[str, Any] = {
        "absolute": moments([abs(value) for value in baseline], [abs(value) for value in candidate]),
        "squared": moments(*squares),
    }
    if away is not None:
        variance = sum(value**2 for value in away) / len(away)
        errors["scaled"] = moments(*([value / variance for value in one] for one in (*squares, [v**2 for v in away])))
    parts["task"] = "Regression"
    parts["data"]["samples"] = len(baseline)
    return parts | {"errors": errors}


def embedding(cosines: Numbers, **figures: float) -> dict[str, Any]:
    parts = passing()
    del parts["flips"]
    parts["task"] = "Embedding"
    parts["data"]["samples"] = len(cosines)
    parts["candidate"] |= figures
    return parts | {"similarity": moments(cosines)}


def judged(parts: dict[str, Any], limit: Gate) -> Verdict:
    return verdict(Report.model_validate(parts), limit)


def normal(chance: random.Random, count: int, scale: float = 1) -> Numbers:
    return [scale * chance.gauss() for _ in range(count)]


CHANCE = random.Random(0)  # noqa: S311
ERRORS, LABELS = normal(CHANCE, 400), normal(CHANCE, 400, 3)
SLIGHTLY_WORSE = [1.02 * error for error in ERRORS]


# --- the numbers behind


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_students_quantile_is_that_of_scipy(confidence: float) -> None:
    for degrees in (1, 2, 3, 5, 6, 10, 29, 30, 99, 10_000):
        assert t_score(confidence, degrees) == pytest.approx(student.ppf(confidence, degrees), abs=1e-3, rel=1e-6)


def test_an_interval_is_never_narrower_than_students() -> None:
    width = t_score(0.95, 49) * math.sqrt(4 / 50)
    for third in (-30.0, -1e-9, 0.0, 1e-9, 30.0):
        low, high = mean_interval(1, 4, third, 50, 0.95)
        assert low <= 1 - width
        assert high >= 1 + width
    assert mean_interval(1, 4, 30, 50, 0.95).high > 1 + width
    assert mean_interval(1, 0, 0, 50, 0.95) == (1, 1)


# --- regression


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_an_error_that_is_two_percent_larger(metric: str) -> None:
    parts = regression(ERRORS, SLIGHTLY_WORSE)
    assert judged(parts, gate(metric, max_regression="2.01%")) is PASS
    assert judged(parts, gate(metric, max_regression="1.99%")) is FAIL
    found = check(Report.model_validate(parts), gate(metric, max_regression="5%"))
    assert found.observed == "+2%"
    assert found.message.endswith("(+2%); 95% sure that the increase is below the limit of 5%")


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2"])
def test_a_model_that_answers_the_same_loses_nothing(metric: str) -> None:
    parts = regression(ERRORS, ERRORS, LABELS)
    assert judged(parts, gate(metric, max_regression=0)) is PASS


def test_too_few_samples_say_how_many_would_decide() -> None:
    chance = random.Random(1)  # noqa: S311
    noisy = [0.75 * error + 0.75 * other for error, other in zip(ERRORS, normal(chance, 400), strict=True)]
    found = check(Report.model_validate(regression(ERRORS, noisy)), gate("rmse", max_regression="5%"))
    assert found.verdict is INCONCLUSIVE
    assert found.needed_samples is not None
    assert found.needed_samples > 400
    assert f"about {found.needed_samples:,} samples would decide, 400 were measured" in found.message


def test_r2_is_judged_by_points() -> None:
    parts = regression(ERRORS, SLIGHTLY_WORSE, LABELS)
    found = check(Report.model_validate(parts), gate("r2", max_regression="1%"))
    share = sum(error**2 for error in ERRORS) / sum(label**2 for label in LABELS)
    assert found.verdict is PASS
    assert found.observed == f"{round(-share * (1.02**2 - 1) * 100, 2):g} points"
    assert judged(parts, gate("r2", max_regression="0.1%")) is FAIL
    assert judged(parts, gate("r2", min="80%")) is PASS
    assert judged(parts, gate("r2", min="95%")) is FAIL


def test_an_error_has_a_limit_of_its_own() -> None:
    parts = regression(ERRORS, ERRORS)
    root = math.sqrt(sum(error**2 for error in ERRORS) / 400)
    mean = sum(map(abs, ERRORS)) / 400
    for share, expected in ((1.2, PASS), (1, INCONCLUSIVE), (0.8, FAIL)):
        assert judged(parts, gate("rmse", max_error=f"{root * share:.4f}")) is expected
        assert judged(parts, gate("mae", max_error=f"{mean * share:.4f}")) is expected


@pytest.mark.parametrize("count", [29, 30])
def test_fewer_than_thirty_samples_prove_nothing(count: int) -> None:
    parts = regression(ERRORS[:count], ERRORS[:count], LABELS[:count])
    expected = PASS if count == 30 else INCONCLUSIVE
    for metric in ("rmse", "mae", "r2"):
        assert judged(parts, gate(metric, max_regression="50%")) is expected
    assert judged(parts, gate("rmse", max_error="9")) is INCONCLUSIVE


def test_a_baseline_without_error_leaves_no_share_of_it() -> None:
    assert judged(regression([0.0] * 50, [0.0] * 50), gate("rmse", max_regression="5%")) is INCONCLUSIVE


def test_labels_that_are_all_the_same_leave_no_r2() -> None:
    assert judged(regression(ERRORS, ERRORS), gate("r2", min=0)) is INCONCLUSIVE


# --- embeddings


def test_the_mean_cosine_is_judged_with_its_interval() -> None:
    cosines = [0.98 + 0.005 * value for value in ERRORS]
    mean = sum(cosines) / 400
    assert judged(embedding(cosines), gate("cosineSimilarity", min="97%")) is PASS
    assert judged(embedding(cosines), gate("cosineSimilarity", min="99%")) is FAIL
    assert judged(embedding(cosines), gate("cosineSimilarity", min=f"{mean:.6f}")) is INCONCLUSIVE
    assert judged(embedding(cosines[:99]), gate("cosineSimilarity", min="97%")) is INCONCLUSIVE
    assert judged(embedding([1.0] * 400), gate("cosineSimilarity", min=1)) is PASS
    assert judged(embedding([1.1] * 400), gate("cosineSimilarity", min="50%")) is INCONCLUSIVE


@pytest.mark.parametrize("metric", ["neighbourOverlap", "rankCorrelation"])
def test_neighbours_and_ranks_are_compared_as_measured(metric: str) -> None:
    field = {"neighbourOverlap": "neighbour_overlap", "rankCorrelation": "rank_correlation"}[metric]
    for value, expected in ((0.9, PASS), (0.8999, FAIL), (math.nan, INCONCLUSIVE), (1.1, INCONCLUSIVE)):
        assert judged(embedding([1.0] * 400, **{field: value}), gate(metric, min="90%")) is expected
    assert judged(embedding([1.0] * 400), gate(metric, min=0)) is INCONCLUSIVE
    negative = FAIL if metric == "rankCorrelation" else INCONCLUSIVE
    assert judged(embedding([1.0] * 400, **{field: -0.5}), gate(metric, min=0)) is negative


# --- what is missing, and what cannot be

REGRESSION = regression(ERRORS, ERRORS, LABELS)
EMBEDDING = embedding([0.99] * 400)


@pytest.mark.parametrize(
    ("limit", "which"),
    [
        (gate("rmse", max_regression="5%"), "squared"),
        (gate("mae", max_error="9"), "absolute"),
        (gate("r2", max_regression="5%"), "scaled"),
        (gate("r2", min=0), "scaled"),
        (gate("cosineSimilarity", min="90%"), ""),
    ],
)
def test_missing_and_impossible_moments_never_pass(limit: Gate, which: str) -> None:
    parts, evidence = (REGRESSION, "errors") if which else (EMBEDDING, "similarity")
    assert judged(parts, limit) is PASS
    assert judged({key: value for key, value in parts.items() if key != evidence}, limit) is INCONCLUSIVE
    changes: list[tuple[str, Any]] = [("samples", 399), ("samples", 0)]
    changes += [("means", []), ("means", [-2.0] * 3), ("means", [math.nan] * 3)]
    changes += [("covariances", value) for value in ([], [[-1.0] * 3] * 3, [[math.inf] * 3] * 3)]
    changes += [("thirds", value) for value in ([], [[[math.nan] * 3] * 3] * 3)]
    for field, value in changes:
        damaged = copy.deepcopy(parts)
        place = damaged[evidence][which] if which else damaged[evidence]
        place[field] = _cut(value, len(place["means"]))
        try:
            report = Report.model_validate(damaged)
        except ValidationError:
            continue
        assert verdict(report, limit) is INCONCLUSIVE, field


def _cut(value: Any, length: int) -> Any:
    """Return lists of lists of as many numbers as the report has a sample."""
    return [_cut(one, length) for one in value[:length]] if isinstance(value, list) else value


def test_covariances_that_contradict_each_other_never_pass() -> None:
    parts = copy.deepcopy(REGRESSION)
    parts["errors"]["squared"]["covariances"] = [[1.0, 9.0], [9.0, 1.0]]
    assert judged(parts, gate("rmse", max_regression="5%")) is INCONCLUSIVE


def test_a_classifier_has_no_errors_and_a_regression_no_accuracy() -> None:
    for metric, bound in (("rmse", {"max_regression": 1}), ("r2", {"min": 0}), ("cosineSimilarity", {"min": 0})):
        assert judged(passing(), gate(metric, **bound)) is INCONCLUSIVE
    assert judged(REGRESSION, gate("accuracy", min=0)) is INCONCLUSIVE


# --- how often


def correlated(chance: random.Random, count: int) -> tuple[Numbers, Numbers]:
    """Return errors of two models that are equally good, and often wrong on the same samples."""
    first, other = normal(chance, count), normal(chance, count)
    return first, [0.9 * one + math.sqrt(1 - 0.81) * two for one, two in zip(first, other, strict=True)]


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_a_candidate_at_the_margin_is_released_in_about_five_percent(metric: str) -> None:
    chance, tries, passed = random.Random(4711), 300, 0  # noqa: S311
    for _ in range(tries):
        baseline, candidate = correlated(chance, 100)
        parts = regression(baseline, [1.05 * error for error in candidate])
        passed += judged(parts, gate(metric, max_regression="5%")) is PASS
    # Three standard errors above 5%.
    assert passed / tries <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tries)


def test_candidates_at_four_times_the_margin_are_not_released() -> None:
    chance = random.Random(4711)  # noqa: S311
    for _ in range(100):
        baseline, candidate = correlated(chance, 300)
        parts = regression(baseline, [1.2 * error for error in candidate])
        assert judged(parts, gate("rmse", max_regression="5%")) is not PASS


def test_a_mean_cosine_at_the_limit_seldom_passes_though_its_tail_is_long() -> None:
    """Student's interval alone lets about 10% pass here."""
    chance, tries, passed = random.Random(4711), 300, 0  # noqa: S311
    for _ in range(tries):
        cosines = [1 - 0.02 * math.exp(chance.gauss() - 0.5) for _ in range(200)]
        passed += judged(embedding(cosines), gate("cosineSimilarity", min="98%")) is PASS
    assert passed / tries <= 0.08
