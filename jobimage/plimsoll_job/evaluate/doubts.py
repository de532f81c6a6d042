"""What speaks against a baseline: a candidate can be as good as one that is wrong, and would pass.

Agreement beyond chance: Cohen, Educ Psychol Meas 20 (1960) 37; its exact mean and variance where labels are dealt out
at random: those of a permutation test, from the hypergeometric counts of the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api import figures
from plimsoll_api.statistics import mean_interval, z_score
from plimsoll_job.evaluate.moments import moments_of
from plimsoll_job.evaluate.quality import NOT_FINITE, Classes, accuracy

CONFIDENCE = 0.95
#: Vectors count as one where none is farther from their mean than this share of its length: a hundred times the
#: rounding of float32.
SAME = 1e-5


def of_finite(not_finite: int, answers: int) -> Iterator[str]:
    """Yield a sentence where an answer holds NaN or infinity."""
    if not_finite:
        yield (
            f"{figures.count(not_finite)} of the baseline's {figures.count(answers)} answers hold NaN or infinity "
            f"({figures.percent(not_finite / answers)})"
        )


def of_classes(answers: Classes, labels: Classes, independent: float | None = None) -> Iterator[str]:
    """Yield what speaks against class numbers [n] beside their labels.

    `independent` says as how many answers they count, where not as n.
    """
    finite = answers != NOT_FINITE
    given = answers[finite]
    occurring = np.unique(labels)
    right = f"right in {figures.percent(accuracy(answers, labels))} of {figures.count(len(labels))}"
    if len(occurring) == 1:
        yield f"all labels are of class {occurring[0]}: they tell no answer from another"
    elif len(given) and (given == given[0]).all():
        share = figures.percent(float((labels == given[0]).mean()))
        yield f"the baseline answers class {given[0]} to every sample, whose share of the labels is {share}"
    elif len(given):
        chance, bound = chance_agreement(answers, labels, independent)
        if accuracy(answers, labels) <= bound:
            yield (
                f"the baseline is {right}, which is not shown to be more than by chance: "
                f"{figures.percent(chance)}, up to {figures.percent(bound)} with 95% confidence"
            )
        if (better := in_another_order(given, labels[finite])) is not None:
            moved, then = better
            pairs = ", ".join(f"{label} for {answer}" for label, answer in moved[:5]) + (", …" if moved[5:] else "")
            share = figures.percent(then * len(given) / len(labels))
            yield (
                f"the baseline is {right}, and would be in {share} if labels were in another order ({pairs}): they do "
                "not seem to be the numbers of its outputs"
            )


def chance_agreement(answers: Classes, labels: Classes, independent: float | None = None) -> tuple[float, float]:
    """Return the share that is right when labels are dealt out at random, and the share that 5% of deals exceed."""
    samples = len(labels)
    classes = np.union1d(labels, answers)
    given, wanted = (np.array([(one == k).sum() for k in classes], dtype=np.float64) for one in (answers, labels))
    both = given * wanted
    expected = both.sum() / samples
    # Cov(n_kk, n_jj) = g_k w_k g_j w_j / (n² (n - 1)) of two classes, Var(n_kk) = g_k w_k (n - g_k)(n - w_k) / (…).
    alone = (both * (samples - given) * (samples - wanted)).sum()
    together = both.sum() ** 2 - (both**2).sum()
    variance = (alone + together) / (samples**2 * max(samples - 1, 1))
    spread = math.sqrt(max(variance, 0.0) * samples / (independent or samples))
    return expected / samples, min(1.0, (expected + z_score(CONFIDENCE) * spread) / samples)


def in_another_order(answers: Classes, labels: Classes) -> tuple[list[tuple[int, int]], float] | None:
    """Return labels with the answers that they seem to stand for, and the share right then; None where none do.

    Only where each label has an answer of its own that most of its samples get, and more than half of what is wrong
    goes with it, without one sample of each label, which by itself always fits: a model that takes one class for
    another now and then is no such case.
    """
    usual: dict[int, int] = {}
    for label in np.unique(labels):
        found, counts = np.unique(answers[labels == label], return_counts=True)
        usual[int(label)] = int(found[counts.argmax()])
    moved = [(label, answer) for label, answer in usual.items() if label != answer]
    if not moved or len(set(usual.values())) < len(usual):
        return None
    numbers = np.vectorize(usual.get, otypes=[np.int64])(labels)
    wrong, then = int((answers != labels).sum()), int((answers != numbers).sum())
    gained = ((answers == numbers).astype(np.float64) - (answers == labels)).astype(np.float64)
    low, _ = _interval(gained)
    return (moved, 1 - then / len(labels)) if (wrong - then - len(moved)) * 2 > wrong and low > 0 else None


def of_numbers(answers: NDArray[Any], labels: NDArray[Any]) -> Iterator[str]:
    """Yield what speaks against finite numbers [n, outputs] beside their labels."""
    labels = labels.astype(np.float64)
    variance = labels.var(axis=0)
    if (variance == 0).any():
        yield "all labels of an output are the same: they tell no answer from another"
    elif len(answers) > 1 and (answers == answers[0]).all():
        yield f"the baseline gives every sample the same answer, {figures.number(float(answers[0].flat[0]))}"
    elif len(answers) > 1:
        errors, away = (
            ((one.astype(np.float64) - labels) ** 2 / variance).mean(axis=1) for one in (answers, labels.mean(axis=0))
        )
        _, high = _interval(errors - away)
        if high >= 0:
            r2 = figures.percent(1 - float(errors.mean()))
            yield (
                f"the baseline's R² is {r2}: its errors are not shown to be smaller than those of always answering the "
                "mean of the labels"
            )


def of_vectors(vectors: NDArray[Any]) -> Iterator[str]:
    """Yield what speaks against finite vectors [n, dimensions]."""
    if len(vectors) > 1:
        mean = vectors.astype(np.float64).mean(axis=0)
        farthest = float(np.linalg.norm(vectors - mean, axis=1).max())
        if farthest <= SAME * max(float(np.linalg.norm(mean)), np.finfo(np.float64).tiny):
            yield "the baseline gives every sample the same vector"


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return an interval of the mean of values that are one a sample."""
    if len(values) < 2:
        return -math.inf, math.inf
    found = moments_of(values)
    return mean_interval(found.means[0], found.covariances[0][0], found.thirds[0][0][0], found.samples, CONFIDENCE)
