"""Every task is measured by slices too."""

from typing import Any

import numpy as np
import pytest

from plimsoll_api.report import SliceFigures
from plimsoll_api.sources import Task
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.slices import measure_slices
from plimsoll_job.evaluate.yardsticks import YARDSTICKS

WRITERS = np.array(["b", "a", "b", "a"])


def slices(task: Task, baseline: Any, candidate: Any, labels: Any, columns: dict[str, Any]) -> list[SliceFigures]:
    return measure_slices(
        YARDSTICKS[task], baseline=baseline, candidate=candidate, labels=labels, columns=columns, spec_field="f"
    )


def test_each_value_of_a_column_is_a_slice() -> None:
    labels = np.array([0, 1, 0, 1])
    baseline, candidate = np.array([0, 1, 1, 1]), np.array([0, 0, 0, 1])
    columns = {"writer": WRITERS, "half": np.array([1, 1, 2, 2])}
    found = slices(Task.IMAGE_CLASSIFICATION, baseline, candidate, labels, columns)
    assert [(one.column, one.value, one.samples) for one in found] == [
        ("writer", "a", 2), ("writer", "b", 2), ("half", "1", 2), ("half", "2", 2),
    ]  # fmt: skip
    assert [one.baseline.accuracy for one in found] == [1.0, 0.5, 1.0, 0.5]
    assert [one.candidate.accuracy for one in found] == [0.5, 1.0, 0.5, 1.0]
    assert [one.flips.samples for one in found if one.flips] == [2, 2, 2, 2]


def test_errors_and_similarities_by_slice() -> None:
    labels = np.array([[0.0], [1.0], [2.0], [3.0]])
    candidate = labels + np.array([[1], [2], [3], [2]])
    first, second = slices(Task.REGRESSION, labels + 1, candidate, labels, {"writer": WRITERS})
    assert (first.baseline.mae, first.candidate.mae) == (1, 2)
    assert second.candidate.rmse == pytest.approx(5**0.5)
    vectors = np.eye(4)
    turned = vectors.copy()
    turned[1] = [0.6, 0.8, 0, 0]
    first, second = slices(Task.EMBEDDING, vectors, turned, None, {"writer": WRITERS})
    assert first.candidate.cosine_similarity == pytest.approx(0.9)
    assert (first.baseline.cosine_similarity, second.candidate.cosine_similarity) == (1, 1)


def test_more_slices_than_a_report_holds_are_refused() -> None:
    ones = np.zeros(300, int)
    with pytest.raises(UserError, match="f: the columns have 300 values, a report holds at most 256 slices"):
        slices(Task.IMAGE_CLASSIFICATION, ones, ones, ones, {"id": np.arange(300)})


def test_a_column_of_more_than_one_value_a_sample_is_refused() -> None:
    ones = np.zeros(4, int)
    with pytest.raises(UserError, match="expected one value a sample"):
        slices(Task.IMAGE_CLASSIFICATION, ones, ones, ones, {"id": np.zeros((4, 2))})
