"""Quality of token classification: every token that counts is an answer, and those of one sample go together.

Kish, Survey Sampling (1965): the effective size of samples that come in clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.report import Flips
from plimsoll_job.evaluate.quality import count_flips
from plimsoll_job.load.labels import IGNORED

#: With flips in fewer samples nothing can be said of how they go together: all of a sample is then one answer.
LEAST_FLIPPED = 20


def counted(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which tokens [n, length] count."""
    which: NDArray[np.bool_] = labels != IGNORED
    return which


def count_token_flips(baseline: NDArray[Any], candidate: NDArray[Any], labels: NDArray[Any]) -> Flips:
    """Return how the candidate's tokens differ from the baseline's, and as how many independent ones they count."""
    which = counted(labels)
    flips = count_flips(baseline[which], candidate[which], labels[which])
    was_right, is_right = (((one == labels) & which).astype(np.float64) for one in (baseline, candidate))
    return flips.model_copy(update={"effective_samples": effective_samples(was_right, is_right, which)})


def effective_samples(was_right: NDArray[Any], is_right: NDArray[Any], which: NDArray[np.bool_]) -> float:
    """Return the independent answers that give an interval as wide as the clusters [n, length] do.

    The fewer of two: for the difference of both models, and for the candidate's own share.
    """
    sizes = which.sum(axis=1).astype(np.float64)
    total = sizes.sum()
    one_a_sample = total**2 / (sizes**2).sum()
    changes = (is_right - was_right) * which
    if int((changes != 0).any(axis=1).sum()) < LEAST_FLIPPED:
        return float(max(1.0, one_a_sample))
    sums = ((changes, (changes**2).sum() / total), (is_right * which, (is_right * which).sum() / total))
    sizes_found = [total]
    for values, mean_square in sums:
        mean = values.sum() / total
        away = values.sum(axis=1) - mean * sizes
        clustered = len(sizes) / max(len(sizes) - 1, 1) * (away**2).sum() / total**2
        if clustered > 0:
            sizes_found.append((mean_square - mean**2) / clustered)
    return float(np.clip(min(sizes_found), 1, total))
