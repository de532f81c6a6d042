"""Every task has metrics of its own, and every metric of quality a task and a place in the report and the summary."""

from __future__ import annotations

from plimsoll_api.crd import DEFINITIONS
from plimsoll_api.report import QualityFigures
from plimsoll_api.sources import Task
from plimsoll_api.status import JobSummary
from plimsoll_api.summary import QUALITY_METRICS
from plimsoll_api.tasks import QUALITY, quality_of


def test_every_task_is_measured_once() -> None:
    assert sorted(task for tasks in QUALITY for task in tasks) == sorted(Task)
    assert all(quality_of(task) for task in Task)


def test_every_metric_of_quality_has_its_task_and_its_place() -> None:
    metrics = [metric for metrics in QUALITY.values() for metric in metrics]
    assert len(set(metrics)) == len(metrics)
    assert set(metrics) == set(QUALITY_METRICS)
    for name in QUALITY_METRICS.values():
        assert name in QualityFigures.model_fields
        assert name in JobSummary.model_fields


def test_kubectl_shows_the_first_metric_of_the_task() -> None:
    shown = [column.path for one in DEFINITIONS for column in one.columns if column.name == "Quality"]
    assert shown == [".status.summary.quality", ".spec.summary.quality"]
