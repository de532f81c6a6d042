"""What each task is measured by, and what of a job goes with which task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plimsoll_api.gates import Metric
from plimsoll_api.rules import Rule
from plimsoll_api.sources import Task

CLASSIFICATION = (
    Task.IMAGE_CLASSIFICATION,
    Task.TEXT_CLASSIFICATION,
    Task.TABULAR_CLASSIFICATION,
    Task.TOKEN_CLASSIFICATION,
)

#: The metrics of quality of each task; the first is the one that people look at.
QUALITY: Mapping[tuple[Task, ...], tuple[Metric, ...]] = {
    CLASSIFICATION: (Metric.ACCURACY, Metric.MACRO_F1),
    (Task.REGRESSION,): (Metric.RMSE, Metric.MAE, Metric.R2),
    (Task.EMBEDDING,): (Metric.COSINE_SIMILARITY, Metric.NEIGHBOUR_OVERLAP, Metric.RANK_CORRELATION),
}


def quality_of(task: Task) -> tuple[Metric, ...]:
    """Return the metrics of quality of the task, the one to look at first."""
    return next(metrics for tasks, metrics in QUALITY.items() if task in tasks)


def _listed(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


def _gates_of(tasks: tuple[Task, ...], metrics: tuple[Metric, ...]) -> Rule:
    return Rule(
        cel=f"self.task in {_listed(tasks)} || !self.gates.exists(g, g.metric in {_listed(metrics)})",
        holds=lambda spec: spec.task in tasks or not any(gate.metric in metrics for gate in spec.gates),
        message=f"{', '.join(metrics)} can be measured of the task {' or '.join(tasks)} only",
        field="gates",
    )


#: For whatever has a task and gates: a metric that is not measured could never pass.
GATE_RULES = tuple(_gates_of(tasks, metrics) for tasks, metrics in QUALITY.items())


def _without_classes(part: str) -> Rule:
    def holds(spec: Any) -> bool:
        source = getattr(spec.data, part)
        return spec.task in CLASSIFICATION or source is None or not source.classes

    return Rule(
        cel=f"self.task in {_listed(CLASSIFICATION)} || !has(self.data.{part}) || size(self.data.{part}.classes) == 0",
        holds=holds,
        message="go with classification only",
        field=f"data.{part}.classes",
        reason="FieldValueForbidden",
    )


#: For a whole job.
JOB_RULES = (
    *GATE_RULES,
    *(_without_classes(part) for part in ("train", "calibration", "evaluation")),
    Rule(
        cel="self.task != 'TokenClassification' || (has(self.data.evaluation.text) && "
        "size(self.data.evaluation.text) == 1)",
        holds=lambda spec: (
            spec.task != Task.TOKEN_CLASSIFICATION
            or (spec.data.evaluation.text is not None and len(spec.data.evaluation.text) == 1)
        ),
        message="must name one column, of lists of words, with the task TokenClassification",
        field="data.evaluation.text",
        reason="FieldValueRequired",
    ),
    Rule(
        cel="self.task != 'Embedding' || !self.steps.exists(s, has(s.distill) && "
        "s.distill.losses.exists(l, has(l.labels)))",
        holds=lambda spec: (
            spec.task != Task.EMBEDDING
            or not any(loss.labels is not None for step in spec.steps if step.distill for loss in step.distill.losses)
        ),
        message="a loss on labels does not go with the task Embedding: it has none",
        field="steps",
    ),
)
