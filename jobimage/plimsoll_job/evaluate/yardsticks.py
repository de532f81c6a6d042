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
from plimsoll_job.evaluate import doubts
from plimsoll_job.evaluate.embedding import fidelity, similarities
from plimsoll_job.evaluate.moments import moments_of
from plimsoll_job.evaluate.quality import NOT_FINITE, accuracy, classes_of, count_flips, macro_f1
from plimsoll_job.evaluate.regression import compare_errors, error_figures
from plimsoll_job.evaluate.tokens import count_token_flips, counted, effective_samples
from plimsoll_job.load.data import check_classes

Answers = NDArray[Any]


@dataclass(frozen=True)
class Evidence:
    """What a gate can judge a loss by: which of these, the task says."""

    flips: Flips | None = None
    errors: Errors | None = None
    similarity: Moments | None = None
    #: Samples that errors and similarity leave out: an answer to them is not finite.
    left_out: int = 0


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

    def doubts(self, answers: Answers, labels: Answers | None) -> list[str]:
        """Return what speaks against a baseline of these answers, a sentence each."""


class Classification:
    """One class a sample, against a label."""

    def answers(self, outputs: NDArray[np.float32]) -> Answers:
        """Return the predicted classes, NOT_FINITE where an answer is no class."""
        return classes_of(outputs)

    def check(self, labels: Answers | None, outputs: int, spec_field: str) -> None:
        """UserError when a label lies beyond the classes."""
        check_classes(_given(labels), outputs, f"{spec_field}.labels")

    def figures(self, baseline: Answers, answers: Answers, labels: Answers | None) -> QualityFigures:
        """Return accuracy and macro F1."""
        return _class_figures(answers, _given(labels))

    def compare(self, baseline: Answers, candidate: Answers, labels: Answers | None) -> Evidence:
        """Return the flips."""
        return Evidence(flips=count_flips(baseline, candidate, _given(labels)))

    def doubts(self, answers: Answers, labels: Answers | None) -> list[str]:
        """Return whether they agree with the labels by chance only, or are all the same."""
        given = _given(labels)
        return [*doubts.of_finite(_not_finite(answers), len(given)), *doubts.of_classes(answers, given)]


class TokenClassification:
    """A class a token, against a label for each that counts."""

    def answers(self, outputs: NDArray[np.float32]) -> Answers:
        """Return the predicted classes [n, length], NOT_FINITE where an answer is no class."""
        return classes_of(outputs)

    def check(self, labels: Answers | None, outputs: int, spec_field: str) -> None:
        """UserError when a label lies beyond the classes."""
        check_classes(_given(labels), outputs, f"{spec_field}.labels")

    def figures(self, baseline: Answers, answers: Answers, labels: Answers | None) -> QualityFigures:
        """Return accuracy and macro F1 over the tokens that count; unset where none does."""
        given = _given(labels)
        which = counted(given)
        return _class_figures(answers[which], given[which]) if which.any() else QualityFigures(not_finite=0)

    def compare(self, baseline: Answers, candidate: Answers, labels: Answers | None) -> Evidence:
        """Return the flips of tokens, None where no token counts."""
        given = _given(labels)
        return Evidence(flips=count_token_flips(baseline, candidate, given) if counted(given).any() else None)

    def doubts(self, answers: Answers, labels: Answers | None) -> list[str]:
        """Return the same of tokens, which count as the independent answers that they are."""
        given = _given(labels)
        which = counted(given)
        right = ((answers == given) & which).astype(np.float64)
        independent = effective_samples(right, right, which)
        found = doubts.of_classes(answers[which], given[which], independent)
        return [*doubts.of_finite(_not_finite(answers[which]), int(which.sum())), *found]


class Regression:
    """One or several numbers a sample, against as many labels."""

    def answers(self, outputs: NDArray[np.float32]) -> Answers:
        """Return the numbers."""
        return outputs

    def check(self, labels: Answers | None, outputs: int, spec_field: str) -> None:
        """UserError when a sample has more or fewer labels than the model answers with."""
        if _given(labels).shape[1] != outputs:
            raise UserError(
                f"{spec_field}.labels: {_given(labels).shape[1]} numbers a sample, the model answers with {outputs}"
            )

    def figures(self, baseline: Answers, answers: Answers, labels: Answers | None) -> QualityFigures:
        """Return the errors of the answers that are finite."""
        finite = finite_rows(answers)
        found = error_figures(answers[finite], _given(labels)[finite]) if finite.any() else QualityFigures()
        return found.model_copy(update={"not_finite": int((~finite).sum())})

    def compare(self, baseline: Answers, candidate: Answers, labels: Answers | None) -> Evidence:
        """Return the errors of both, sample by sample."""
        finite = finite_rows(baseline) & finite_rows(candidate)
        left_out = int((~finite).sum())
        if not finite.any():
            return Evidence(left_out=left_out)
        return Evidence(
            errors=compare_errors(baseline[finite], candidate[finite], _given(labels)[finite]), left_out=left_out
        )

    def doubts(self, answers: Answers, labels: Answers | None) -> list[str]:
        """Return whether the mean of the labels would be as good an answer."""
        finite = finite_rows(answers)
        found = doubts.of_numbers(answers[finite], _given(labels)[finite]) if finite.any() else ()
        return [*doubts.of_finite(int((~finite).sum()), len(finite)), *found]


class Embedding:
    """One vector a sample, against the baseline's; there are no labels."""

    def answers(self, outputs: NDArray[np.float32]) -> Answers:
        """Return the vectors."""
        return outputs

    def check(self, labels: Answers | None, outputs: int, spec_field: str) -> None:
        """Nothing can be wrong with labels that are not there."""

    def figures(self, baseline: Answers, answers: Answers, labels: Answers | None) -> QualityFigures:
        """Return how near the vectors are to the baseline's, where both are finite."""
        finite = finite_rows(baseline) & finite_rows(answers)
        found = fidelity(baseline[finite], answers[finite]) if finite.any() else QualityFigures()
        return found.model_copy(update={"not_finite": int((~finite_rows(answers)).sum())})

    def compare(self, baseline: Answers, candidate: Answers, labels: Answers | None) -> Evidence:
        """Return the cosines, sample by sample."""
        finite = finite_rows(baseline) & finite_rows(candidate)
        cosines = similarities(baseline[finite], candidate[finite])
        return Evidence(similarity=moments_of(cosines) if finite.any() else None, left_out=int((~finite).sum()))

    def doubts(self, answers: Answers, labels: Answers | None) -> list[str]:
        """Return whether all vectors are one."""
        finite = finite_rows(answers)
        return [*doubts.of_finite(int((~finite).sum()), len(finite)), *doubts.of_vectors(answers[finite])]


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


def finite_rows(answers: Answers) -> NDArray[np.bool_]:
    """Return which answers [n, …] are finite in each of their numbers."""
    return np.asarray(np.isfinite(answers).reshape(len(answers), -1).all(axis=1))


def _class_figures(answers: Answers, labels: Answers) -> QualityFigures:
    return QualityFigures(
        not_finite=_not_finite(answers), accuracy=accuracy(answers, labels), macro_f1=macro_f1(answers, labels)
    )


def _not_finite(classes: Answers) -> int:
    return int((classes == NOT_FINITE).sum())
