"""Answers that are not finite are counted and never right, and a baseline that says nothing is told."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from plimsoll_api.sources import Task
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.doubts import chance_agreement, in_another_order
from plimsoll_job.evaluate.yardsticks import YARDSTICKS
from plimsoll_job.techniques.distill.teacher import Teacher
from plimsoll_job.techniques.quantize.start import check_finite

NAN, INF = np.nan, np.inf


def logits(classes: Any, count: int = 4) -> Any:
    """Return outputs whose largest is that of these classes."""
    return np.eye(count, dtype=np.float32)[np.asarray(classes)]


def doubts(task: Task, outputs: Any, labels: Any) -> list[str]:
    yardstick = YARDSTICKS[task]
    return yardstick.doubts(yardstick.answers(np.asarray(outputs, dtype=np.float32)), labels)


# --- answers that are not finite


@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
@pytest.mark.parametrize("task", [Task.TABULAR_CLASSIFICATION, Task.IMAGE_CLASSIFICATION, Task.TEXT_CLASSIFICATION])
def test_a_class_of_nan_is_none_and_never_right(task: Task, wrong: float) -> None:
    yardstick, labels = YARDSTICKS[task], np.array([0, 1, 2, 0])
    outputs = logits(labels)
    outputs[0, 3] = wrong
    answers, whole = yardstick.answers(outputs), yardstick.answers(logits(labels))
    assert answers.tolist() == [-1, 1, 2, 0]
    found = yardstick.figures(whole, answers, labels)
    assert (found.not_finite, found.accuracy) == (1, 0.75)
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 + 1) / 3)
    flips = yardstick.compare(whole, answers, labels).flips
    assert flips is not None
    assert (flips.right_to_wrong, flips.changed) == (1, 1)
    # Both answer NaN: that is no right answer either.
    again = yardstick.compare(answers, answers, labels).flips
    assert again is not None
    assert (again.both_wrong, again.both_right) == (1, 3)


def test_tokens_of_nan_count_where_they_have_a_label() -> None:
    yardstick, labels = YARDSTICKS[Task.TOKEN_CLASSIFICATION], np.array([[0, 1, -100], [2, -100, -100]])
    outputs = logits(np.maximum(labels, 0))
    outputs[0, 1], outputs[1, 2] = NAN, NAN
    answers = yardstick.answers(outputs)
    assert answers[0].tolist() == [0, -1, 0]
    found = yardstick.figures(answers, answers, labels)
    assert found.not_finite == 1
    assert found.accuracy == pytest.approx(2 / 3)


def test_errors_leave_out_what_is_not_finite_and_count_it() -> None:
    yardstick, labels = YARDSTICKS[Task.REGRESSION], np.arange(6, dtype=np.float32)[:, None]
    baseline, candidate = labels + 1, labels + 2
    baseline[0], candidate[1] = NAN, INF
    assert yardstick.figures(baseline, yardstick.answers(candidate), labels).not_finite == 1
    assert yardstick.figures(baseline, candidate, labels).rmse == pytest.approx(2)
    evidence = yardstick.compare(baseline, candidate, labels)
    assert evidence.left_out == 2
    assert evidence.errors is not None
    assert evidence.errors.absolute.means == pytest.approx([1, 2])
    assert evidence.errors.absolute.samples == 4
    nothing = np.full_like(labels, NAN)
    assert yardstick.figures(baseline, nothing, labels).not_finite == 6
    assert yardstick.compare(baseline, nothing, labels).errors is None


def test_vectors_leave_out_what_is_not_finite_and_count_it() -> None:
    yardstick = YARDSTICKS[Task.EMBEDDING]
    vectors = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    broken = vectors.copy()
    broken[3, 2] = NAN
    found = yardstick.figures(vectors, broken, None)
    assert found.not_finite == 1
    assert found.cosine_similarity == pytest.approx(1)
    evidence = yardstick.compare(vectors, broken, None)
    assert evidence.left_out == 1
    assert evidence.similarity is not None
    assert evidence.similarity.samples == 39
    assert yardstick.figures(vectors, np.full_like(vectors, INF), None).cosine_similarity is None


def test_nothing_is_learned_from_a_teacher_or_a_float_model_that_is_not_finite() -> None:
    inputs = (torch.tensor([[1.0], [0.0], [2.0]]),)
    module = nn.Module()
    module.forward = torch.log
    terms: Any = {"logits": SimpleNamespace(pairs=(), knowledge=lambda answers: (answers.output,))}
    with pytest.raises(UserError, match=r"spec.data.train: the teacher answers 1 of a batch's 3 samples with NaN"):
        Teacher(module, terms, inputs, 3, torch.device("cpu"))
    check_finite(np.ones((4, 2)))
    with pytest.raises(UserError, match=r"spec.data.calibration: the model answers 1 of its 4 samples with NaN"):
        check_finite(np.array([[1.0, 2], [1, NAN], [1, 1], [1, 1]]))


# --- doubts


def test_chance_is_that_of_dealing_the_labels_out_anew() -> None:
    chance = np.random.default_rng(0)
    answers, labels = chance.choice(4, 200, p=[0.7, 0.1, 0.1, 0.1]), chance.choice(4, 200, p=[0.4, 0.4, 0.1, 0.1])
    deals = np.array([(answers == chance.permutation(labels)).mean() for _ in range(20_000)])
    expected, bound = chance_agreement(answers, labels)
    assert expected == pytest.approx(deals.mean(), abs=0.002)
    assert bound == pytest.approx(np.quantile(deals, 0.95), abs=0.006)


def test_a_baseline_no_better_than_chance_is_told() -> None:
    """Five percent of such baselines may be taken for better than chance, and none that is far better may be told."""
    chance = np.random.default_rng(1)
    told = [
        bool(doubts(Task.TABULAR_CLASSIFICATION, logits(chance.integers(0, 4, 300)), chance.integers(0, 4, 300)))
        for _ in range(200)
    ]
    assert np.mean(told) > 0.9
    for _ in range(100):
        labels = chance.integers(0, 4, 100)
        answers = np.where(chance.random(100) < 0.5, labels, chance.integers(0, 4, 100))
        assert doubts(Task.TABULAR_CLASSIFICATION, logits(answers), labels) == []


def test_a_rare_class_that_is_found_half_of_the_time_is_no_doubt() -> None:
    """Its accuracy is that of always answering the other class."""
    labels = np.repeat([0, 1], [1980, 20])
    answers = labels.copy()
    answers[:10], answers[-10:] = 1, 0
    assert doubts(Task.TABULAR_CLASSIFICATION, logits(answers), labels) == []


def test_answers_or_labels_of_one_class_are_told() -> None:
    labels = np.tile([0, 1, 2, 3], 20)
    assert doubts(Task.IMAGE_CLASSIFICATION, logits(np.full(80, 2)), labels) == [
        "the baseline answers class 2 to every sample, whose share of the labels is 25%"
    ]
    assert doubts(Task.IMAGE_CLASSIFICATION, logits(labels), np.full(80, 3)) == [
        "all labels are of class 3: they tell no answer from another"
    ]


def test_labels_in_another_order_are_told() -> None:
    """Digits as names, taken for numbers; and a folder that lacks the class before the last."""
    labels = np.tile([0, 1, 2], 40)
    (by_chance, order) = doubts(Task.TABULAR_CLASSIFICATION, logits((labels + 1) % 3), labels)
    assert "not shown to be more than by chance" in by_chance
    assert "and would be in 100% if labels were in another order (0 for 1, 1 for 2, 2 for 0)" in order
    answers = np.where(labels == 2, 3, labels)
    [order] = doubts(Task.TABULAR_CLASSIFICATION, logits(answers), labels)
    assert order.startswith("the baseline is right in 66.67% of 120, and would be in 100% if labels were in another")


def test_a_model_that_takes_one_class_for_another_is_no_such_case() -> None:
    labels = np.tile(np.arange(10), 30)
    confused = np.where((labels == 3) & (np.arange(300) % 3 > 0), 8, labels)
    assert in_another_order(confused, labels) is None
    absent = np.where(labels == 8, 9, labels)
    assert in_another_order(absent, labels) is None


def test_one_sample_of_each_label_tells_no_order() -> None:
    labels = np.arange(4)
    assert in_another_order((labels + 1) % 4, labels) is None
    assert in_another_order((labels.repeat(3) + 1) % 4, labels.repeat(3)) is not None


def test_tokens_are_wrong_together() -> None:
    """Every sample is all right or all wrong, by chance: its tokens are one answer."""
    chance = np.random.default_rng(2)
    labels = np.repeat(chance.integers(0, 2, (60, 1)), 30, axis=1)
    answers = np.repeat(chance.integers(0, 2, (60, 1)), 30, axis=1)
    assert doubts(Task.TOKEN_CLASSIFICATION, logits(answers), labels)
    assert doubts(Task.TOKEN_CLASSIFICATION, logits(labels), labels) == []


def test_a_regression_no_better_than_the_mean_is_told() -> None:
    chance = np.random.default_rng(3)
    labels = chance.standard_normal((200, 1)).astype(np.float32)
    assert doubts(Task.REGRESSION, labels + 0.5 * chance.standard_normal((200, 1)), labels) == []
    assert "R² is" in doubts(Task.REGRESSION, labels * 100, labels)[0]
    assert "the same answer, 0.25" in doubts(Task.REGRESSION, np.full_like(labels, 0.25), labels)[0]
    assert "all labels of an output are the same" in doubts(Task.REGRESSION, labels, np.ones_like(labels))[0]


def test_vectors_that_are_all_one_are_told() -> None:
    chance = np.random.default_rng(4)
    vectors = chance.standard_normal((50, 16)) + 10
    assert doubts(Task.EMBEDDING, vectors, None) == []
    assert doubts(Task.EMBEDDING, np.tile(vectors[:1], (50, 1)), None) == [
        "the baseline gives every sample the same vector"
    ]


@pytest.mark.parametrize("task", list(Task))
def test_a_baseline_that_is_not_finite_is_told(task: Task) -> None:
    labels: Any = {
        Task.TOKEN_CLASSIFICATION: np.tile([[0, 1, 2, 3]], (20, 1)),
        Task.REGRESSION: np.arange(20, dtype=np.float32)[:, None],
        Task.EMBEDDING: None,
    }.get(task, np.tile([0, 1, 2, 3], 5))
    outputs = np.array(np.random.default_rng(0).standard_normal((20, 3)) if labels is None else labels, dtype=float)
    if task not in (Task.REGRESSION, Task.EMBEDDING):
        outputs = logits(labels)
    outputs[4] = NAN
    told = doubts(task, outputs, labels)
    assert "of the baseline's" in told[0]
    assert "answers hold NaN or infinity (5%)" in told[0]
