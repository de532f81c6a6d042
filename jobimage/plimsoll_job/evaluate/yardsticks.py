"""How answers are measured, one yardstick a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.report import Errors, Flips, Moments, QualityFigures
from plimsoll_api.sources import Task
from plimsoll_api.tasks import CLASSIFICATION
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.embedding import fidelity, similarities
from plimsoll_job.evaluate.moments import moments_of
from plimsoll_job.evaluate.quality import accuracy, count_flips, macro_f1
from plimsoll_job.evaluate.regression import compare_errors, error_figures
from plimsoll_job.evaluate.tokens import count_token_flips, counted
from plimsoll_job.load.data import check_classes

Answers = NDArray[Any]


@dataclass(frozen=True)
class Evidence:
    """What a gate can judge a loss by: which of these, the task says."""

    flips: Flips | None = None
    errors: Errors | None = None
    similarity: Moments | None = None


class Yardstick(Protocol):
    """Measures the answers of models to the same samples."""

    def answers(self, outputs: NDArray[np.float32]) -> Answers:
        """Return what is kept of the outputs of a batch, one entry a sample."""

    def check(self, labels: Answers | None, outputs: int, spec_field: str) -> None:
        """UserError when the labels are not of a model with so many outputs."""

    def figures(self, baseline: Answers, answers: Answers, labels: Answers | None) -> QualityFigures:
        """Return what the answers of a model are worth."""

    def compare(self, baseline: Answers, candidate: Answers, labels: Answers | None) -> Evidence:
        """Return how the candidate's answers differ from the baseline's."""


class Classification:
    """One class a sample, against a label."""

    def answers(self, outputs: NDArray[np.float32]) -> Answers:
        """Return the predicted classes."""
        classes: Answers = outputs.argmax(axis=1)
        return classes

    def check(self, labels: Answers | None, outputs: int, spec_field: str) -> None:
        """UserError when a label lies beyond the classes."""
        check_classes(_given(labels), outputs, f"{spec_field}.labels")

    def figures(self, baseline: Answers, answers: Answers, labels: Answers | None) -> QualityFigures:
        """Return accuracy and macro F1."""
        given = _given(labels)
        return QualityFigures(accuracy=accuracy(answers, given), macro_f1=macro_f1(answers, given))

    def compare(self, baseline: Answers, candidate: Answers, labels: Answers | None) -> Evidence:
        """Return the flips."""
        return Evidence(flips=count_flips(baseline, candidate, _given(labels)))


class TokenClassification:
    """A class a token, against a label for each that counts."""

    def answers(self, outputs: NDArray[np.float32]) -> Answers:
        """Return the predicted classes [n, length]."""
        classes: Answers = outputs.argmax(axis=2)
        return classes

    def check(self, labels: Answers | None, outputs: int, spec_field: str) -> None:
        """UserError when a label lies beyond the classes."""
        check_classes(_given(labels), outputs, f"{spec_field}.labels")

    def figures(self, baseline: Answers, answers: Answers, labels: Answers | None) -> QualityFigures:
        """Return accuracy and macro F1 over the tokens that count; unset where none does."""
        given = _given(labels)
        which = counted(given)
        if not which.any():
            return QualityFigures()
        return QualityFigures(
            accuracy=accuracy(answers[which], given[which]), macro_f1=macro_f1(answers[which], given[which])
        )

    def compare(self, baseline: Answers, candidate: Answers, labels: Answers | None) -> Evidence:
        """Return the flips of tokens, None where no token counts."""
        given = _given(labels)
        return Evidence(flips=count_token_flips(baseline, candidate, given) if counted(given).any() else None)


class Regression:
    """One or several numbers a sample, against as many labels."""

    def answers(self, outputs: NDArray[np.float32]) -> Answers:
        """Return the numbers."""
        return _finite(outputs)

    def check(self, labels: Answers | None, outputs: int, spec_field: str) -> None:
        """UserError when a sample has more or fewer labels than the model answers with."""
        if _given(labels).shape[1] != outputs:
            raise UserError(
                f"{spec_field}.labels: {_given(labels).shape[1]} numbers a sample, the model answers with {outputs}"
            )

    def figures(self, baseline: Answers, answers: Answers, labels: Answers | None) -> QualityFigures:
        """Return the errors."""
        return error_figures(answers, _given(labels))

    def compare(self, baseline: Answers, candidate: Answers, labels: Answers | None) -> Evidence:
        """Return the errors of both, sample by sample."""
        return Evidence(errors=compare_errors(baseline, candidate, _given(labels)))


class Embedding:
    """One vector a sample, against the baseline's; there are no labels."""

    def answers(self, outputs: NDArray[np.float32]) -> Answers:
        """Return the vectors."""
        return _finite(outputs)

    def check(self, labels: Answers | None, outputs: int, spec_field: str) -> None:
        """Nothing can be wrong with labels that are not there."""

    def figures(self, baseline: Answers, answers: Answers, labels: Answers | None) -> QualityFigures:
        """Return how near the vectors are to the baseline's."""
        return fidelity(baseline, answers)

    def compare(self, baseline: Answers, candidate: Answers, labels: Answers | None) -> Evidence:
        """Return the cosines, sample by sample."""
        return Evidence(similarity=moments_of(similarities(baseline, candidate)))


#: One yardstick a task; a test compares them with the tasks of the API.
YARDSTICKS: Mapping[Task, Yardstick] = {
    **dict.fromkeys(CLASSIFICATION, Classification()),
    Task.TOKEN_CLASSIFICATION: TokenClassification(),
    Task.REGRESSION: Regression(),
    Task.EMBEDDING: Embedding(),
}


def _given(labels: Answers | None) -> Answers:
    assert labels is not None  # noqa: S101 — read wherever the task has them
    return labels


def _finite(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    wrong = int((~np.isfinite(outputs).all(axis=1)).sum())
    if wrong:
        raise UserError(
            f"spec.output.uri: the model answers {wrong} of a batch's {len(outputs)} samples with NaN or infinity",
            reason="AnswersNotFinite",
        )
    return outputs
