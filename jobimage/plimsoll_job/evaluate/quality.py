"""Quality of classification: accuracy, macro F1, flips."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.report import Flips

Classes = NDArray[np.int64]


def accuracy(predicted: Classes, labels: Classes) -> float:
    """Return the share of right predictions."""
    return float((predicted == labels).mean())


def macro_f1(predicted: Classes, labels: Classes) -> float:
    """Return the mean F1 over the classes that occur in labels or predictions, as scikit-learn's does."""
    scores = []
    for one in np.union1d(labels, predicted):
        right = int(((predicted == one) & (labels == one)).sum())
        scores.append(2 * right / (int((predicted == one).sum()) + int((labels == one).sum())))
    return float(np.mean(scores))


def count_flips(baseline: Classes, candidate: Classes, labels: Classes) -> Flips:
    """Return how the candidate's predictions differ from the baseline's."""
    was_right, is_right = baseline == labels, candidate == labels
    return Flips(
        samples=len(labels),
        both_right=int((was_right & is_right).sum()),
        right_to_wrong=int((was_right & ~is_right).sum()),
        wrong_to_right=int((~was_right & is_right).sum()),
        both_wrong=int((~was_right & ~is_right).sum()),
        changed=int((baseline != candidate).sum()),
    )
