"""Quality figures equal scikit-learn's and hand counts."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from plimsoll_job.evaluate.quality import accuracy, count_flips, macro_f1


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
