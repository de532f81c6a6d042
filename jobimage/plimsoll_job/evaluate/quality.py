"""Quality of classification: accuracy, macro F1, flips."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.report import Flips

Classes = NDArray[np.int64]
#: What an answer counts as that holds NaN or infinity: no class, and never right. argmax would give it one.
NOT_FINITE = -1


def classes_of(outputs: NDArray[np.floating[Any]]) -> Classes:
    """Return the predicted classes [n, …] of outputs [n, …, classes], NOT_FINITE where one of these is not finite."""
    found: Classes = np.where(np.isfinite(outputs).all(axis=-1), outputs.argmax(axis=-1), NOT_FINITE)
    return found


def accuracy(predicted: Classes, labels: Classes) -> float:
    """Return the share of right predictions."""
    return float((predicted == labels).mean())


def macro_f1(predicted: Classes, labels: Classes) -> float:
    """Return the mean F1 over the classes that occur in labels or predictions, as scikit-learn's does."""
    scores = []
    for one in np.setdiff1d(np.union1d(labels, predicted), [NOT_FINITE]):
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
