"""How near a quantized graph's answers are to the float graph's, on the same samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from plimsoll_job.load.data import Samples
from plimsoll_job.techniques.record import six_digits

Answers = NDArray[np.float64]
#: The mean square of the difference of each sample's answers; their mean is that of all answers.
Squares = NDArray[np.float64]


@dataclass(frozen=True)
class Fidelity:
    """Two distances to the float model's answers.

    `error` is the root mean square of the difference, over that of the float answers about their mean; infinite where
    an answer is no number. `changed` is the share of samples, or of tokens that count, whose largest output is another.
    """

    error: float
    changed: float

    def to_details(self) -> dict[str, float]:
        """Return the figures for a record."""
        return {"error": six_digits(self.error), "changed": round(self.changed, 6)}


def answers(session: ort.InferenceSession, samples: Samples) -> Answers:
    """Return the session's answers to all samples, [n, …]; of answers to tokens those to tokens that count."""
    found = [counted(session.run(None, dict(part.inputs))[0], part.mask) for part in samples.parts()]
    return np.concatenate(found).astype(np.float64)


def counted(answered: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Return the answers to tokens that the mask leaves, [tokens, classes]; those to whole samples as they are."""
    if mask is None or answered.ndim != mask.ndim + 1 or answered.shape[:2] != mask.shape:
        return answered
    return answered[mask]


def spread(expected: Answers) -> float:
    """Return the root mean square of the answers about their mean, above 0."""
    return max(float(np.sqrt(((expected - expected.mean(axis=0)) ** 2).mean())), float(np.finfo(np.float64).tiny))


def compare(expected: Answers, given: Answers) -> Fidelity:
    """Return how far the answers are from those expected."""
    distance = np.sqrt(((given - expected) ** 2).mean())
    error = float(distance / spread(expected))
    changed = (given.argmax(axis=-1) != expected.argmax(axis=-1)).mean()
    return Fidelity(error if np.isfinite(error) else float("inf"), float(changed))


def squares_by_sample(expected: Answers, given: Answers, samples: Samples) -> Squares:
    """Return how far the answers to each sample are from those expected; one of more tokens counts for more."""
    rows: Squares = ((given - expected) ** 2).reshape(len(expected), -1).mean(axis=1)
    if len(rows) == len(samples) or samples.mask is None:
        return rows
    counts = samples.mask.sum(axis=1)
    owners = np.repeat(np.arange(len(samples)), counts)
    sums: Squares = np.bincount(owners, rows, len(samples)).astype(np.float64) * (len(samples) / len(rows))
    return sums


def error_of(squares: Squares, expected: Answers) -> float:
    """Return the error that Fidelity tells."""
    return float(np.sqrt(squares.mean()) / spread(expected))
