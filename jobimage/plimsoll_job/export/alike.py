"""Whether answers are alike: by how much two runtimes may differ, and where they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_job.load.inputs import Arrays
from plimsoll_job.load.text import ATTENTION_MASK

#: The largest difference of an answer, as a share of its sample's largest, or of what three samples in four stay below
#: where that is more: a single answer may be next to zero by chance, and rounding does not shrink with it. Two runtimes
#: add in different orders: in float32, EfficientNet-B6 differs by 2e-4 for that alone. What an export gets wrong is
#: larger. A few samples far from all others do not hide what is wrong with these.
TOLERANCE = 1e-3
MOST_SAMPLES = 0.75
#: Answers below it count as zero, as do those below a share of the largest of any sample: of those there is no share.
ZERO, ZERO_SHARE = 1e-12, 1e-7
#: What rounding may come to beside a constant that all answers have, as a share of the largest of them.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Scale:
    """By what differences are measured: from where answers count, what most samples' largest stay below from there.

    Less than `least` is no difference.
    """

    centre: NDArray[np.float64] | float
    usual: float
    least: float


def counting(answers: NDArray[Any], batch: Arrays) -> NDArray[Any]:
    """Return the answers to a batch with those to padding set to zero: nobody reads them."""
    mask = batch.get(ATTENTION_MASK)
    if mask is None or answers.ndim < 3 or answers.shape[:2] != mask.shape:
        return answers
    return np.where(mask.reshape(*mask.shape, *[1] * (answers.ndim - 2)) != 0, answers, 0)


def scale_of(answers: Sequence[NDArray[Any]], *, centred: bool = False) -> Scale:
    """Return the scale of the answers to all batches, from zero, or from the mean of each output.

    From the mean a constant that all answers have hides no difference. What a model hardly tells apart is near to it.
    """
    largest = max(float(_largest(batch).max()) for batch in answers)
    centre = _mean(answers) if centred else 0.0
    found = np.concatenate([_largest(batch - centre) for batch in answers])
    least = max(ZERO, (ROUNDING if centred else ZERO_SHARE) * largest)
    return Scale(centre, float(np.quantile(found, MOST_SAMPLES)), least)


def _mean(answers: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the mean of each output over all batches, of those answers that are finite."""
    rows = np.concatenate([batch.reshape(-1, batch.shape[-1]).astype(np.float64) for batch in answers])
    finite = np.isfinite(rows)
    mean: NDArray[np.float64] = np.where(finite, rows, 0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    return mean


def difference(expected: NDArray[Any], given: NDArray[Any], scale: Scale) -> str | None:
    """Return how and where the answers to a batch differ by more than is tolerated, None if they do not.

    Answers that are not finite are alike where both are, in the same way.
    """
    if expected.shape != given.shape:
        return f"the output has the shape {list(given.shape)}, expected {list(expected.shape)}"
    endless = ~(np.isfinite(expected) & np.isfinite(given))
    if not np.array_equal(expected[endless], given[endless], equal_nan=True):
        whose = "the model's own answer" if np.isfinite(given).all() else "the output"
        return f"{whose} holds NaN or infinite numbers"
    if not expected.size or endless.all():
        return None
    with np.errstate(invalid="ignore"):
        distance = np.where(endless, 0, np.abs(given.astype(np.float64) - expected))
    allowed = np.maximum(TOLERANCE * np.maximum(_largest(expected - scale.centre), scale.usual), scale.least)
    beyond = distance / allowed.reshape(-1, *[1] * (distance.ndim - 1))
    if beyond.max() <= 1:
        return None
    at = tuple(map(int, np.unravel_index(int(beyond.argmax()), beyond.shape)))
    place = ", ".join(map(str, at[1:]))
    return (
        f"the largest difference is {distance[at]:.3g}, at output {place} of sample {at[0]}: "
        f"{given[at]:.6g}, expected {expected[at]:.6g}"
    )


def _largest(answers: NDArray[Any]) -> NDArray[np.float64]:
    """Return the largest absolute answer of each sample, of those that are finite."""
    absolute = np.abs(answers.reshape(len(answers), -1).astype(np.float64))
    found: NDArray[np.float64] = np.where(np.isfinite(absolute), absolute, 0).max(axis=1, initial=0)
    return found
