"""Quality figures equal scikit-learn's and hand counts."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.quality import accuracy, count_flips, macro_f1, measure_slices


@pytest.mark.parametrize("seed", range(20))
def test_accuracy_and_macro_f1_are_those_of_scikit_learn(seed: int) -> None:
    chance = np.random.default_rng(seed)
    labels, predicted = chance.integers(0, 7, (2, 60))
    labels[labels == seed % 7] = (seed + 1) % 7  # a class that is predicted, yet never there
    assert accuracy(predicted, labels) == accuracy_score(labels, predicted)
    assert macro_f1(predicted, labels) == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-12)


def test_flips_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0])
    baseline = np.array([0, 0, 0, 1, 1, 1])
    candidate = np.array([0, 0, 1, 0, 1, 2])
    flips = count_flips(baseline, candidate, labels)
    assert flips.to_wire() == {
        "samples": 6, "bothRight": 2, "rightToWrong": 1, "wrongToRight": 1, "bothWrong": 2, "changed": 3,
    }  # fmt: skip


def test_each_value_of_a_column_is_a_slice() -> None:
    labels = np.array([0, 1, 0, 1])
    baseline, candidate = np.array([0, 1, 1, 1]), np.array([0, 0, 0, 1])
    columns = {"writer": np.array(["b", "a", "b", "a"]), "half": np.array([1, 1, 2, 2])}
    slices = measure_slices(baseline, candidate, labels, columns, "f")
    assert [(one.column, one.value, one.flips.samples) for one in slices] == [
        ("writer", "a", 2), ("writer", "b", 2), ("half", "1", 2), ("half", "2", 2),
    ]  # fmt: skip
    assert [one.baseline_accuracy for one in slices] == [1.0, 0.5, 1.0, 0.5]
    assert [one.candidate_accuracy for one in slices] == [0.5, 1.0, 0.5, 1.0]


def test_more_slices_than_a_report_holds_are_refused() -> None:
    ones = np.zeros(300, int)
    with pytest.raises(UserError, match="f: the columns have 300 values, a report holds at most 256 slices"):
        measure_slices(ones, ones, ones, {"id": np.arange(300)}, "f")


def test_a_column_of_more_than_one_value_a_sample_is_refused() -> None:
    ones = np.zeros(4, int)
    with pytest.raises(UserError, match="expected one value a sample"):
        measure_slices(ones, ones, ones, {"id": np.zeros((4, 2))}, "f")
