"""Snapshots for tests of decisions, made by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.stories import artifact, compression_job, digest, good_report

from plimsoll_api import names
from plimsoll_api.plan import EvaluationRequest
from plimsoll_api.release import ModelReleaseStatus, ModelRevisionSpec
from plimsoll_api.report import Outcome, Report, Summary
from plimsoll_api.spec import CompressionJobSpec
from plimsoll_api.status import CompressionJobStatus
from plimsoll_operator.actions import Announce, Create, Decision, Delete, Patch
from plimsoll_operator.job.decide import decide
from plimsoll_operator.job.snapshot import JobSnapshot, Order
from plimsoll_operator.release.revisions import ReleaseView, Revision
from plimsoll_operator.reports import ReportReading
from plimsoll_operator.stage import Problem, Stage, StageState

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
UID = "job-uid"
RELEASE_UID = "release-uid"
IMAGE = "example/job:1"
BASELINE = artifact("baseline", 1_000_000)
CANDIDATE = artifact("candidate", 60_000)
PLAN = digest("plan")
#: What the compression held.
PEAK = 900_000_000


def order(**spec: Any) -> Order:
    """Return what a job asks for."""
    return Order(CompressionJobSpec.model_validate(compression_job("one", **spec)["spec"]), IMAGE)


def stage(stage_name: str, state: StageState = StageState.ABSENT, **more: Any) -> Stage:
    """Return a stage of the job in this state."""
    return Stage(state, names.stage_name("one", stage_name), uid=f"{stage_name}-uid", **more)


def compressed_stage() -> Stage:
    """Return a compression that is done."""
    made = {"baseline": BASELINE, "candidate": CANDIDATE, "peak_memory_bytes": PEAK}
    summary = Summary(outcome=Outcome.DONE, reason="Done", message="", **made)
    times = {"started": NOW - timedelta(seconds=90), "finished": NOW - timedelta(seconds=30)}
    return stage(names.STAGE_COMPRESS, StageState.DONE, summary=summary, pod="one-compress-x", **times)


def evaluated_stage(**changes: Any) -> Stage:
    """Return an evaluation that is done."""
    fields = {"report_uri": "pvc://models/out/reports/r.json", "report_digest": digest("report"), **changes}
    summary = Summary(outcome=Outcome.DONE, reason="Done", message="", **fields)
    times = {"started": NOW - timedelta(seconds=20), "finished": NOW - timedelta(seconds=5)}
    return stage(names.STAGE_EVALUATE, StageState.DONE, summary=summary, pod="one-evaluate-x", **times)


def failed_stage(stage_name: str, *, outcome: Outcome | None = None) -> Stage:
    """Return a stage whose batch Job failed."""
    problem = Problem("OutOfMemory", "it needs more", outcome=outcome)
    return stage(stage_name, StageState.FAILED, problem=problem)


def snapshot(status: dict[str, Any] | None = None, **more: Any) -> JobSnapshot:
    """Return a job as observed; without more it was just made."""
    fields: dict[str, Any] = {
        "compress": stage(names.STAGE_COMPRESS),
        "evaluate": stage(names.STAGE_EVALUATE),
        "print_report": stage(names.STAGE_PRINT_REPORT),
        **more,
    }
    return JobSnapshot(
        namespace="ns",
        name="one",
        uid=UID,
        generation=1,
        resource_version="1",
        deleting=fields.pop("deleting", False),
        status=CompressionJobStatus.model_validate(status or {}),
        **fields,
    )


def report(lost: int = 3) -> Report:
    """Return a report on the candidate; 3 lost answers pass, 36 are undecided, 400 fail."""
    spec = order().spec
    request = EvaluationRequest(
        task=spec.task,
        data=spec.data.evaluation,
        settings=spec.evaluation,
        seed=0,
        baseline=BASELINE,
        candidate=CANDIDATE,
        output=spec.output,
    )
    return good_report(request, lost=lost)


def reading(lost: int = 3) -> ReportReading:
    """Return a report that was read."""
    return ReportReading(report=report(lost))


def told(decision: Decision) -> CompressionJobStatus:
    """Return the status that was decided."""
    return CompressionJobStatus.model_validate(decision.status)


def conditions(decision: Decision) -> dict[str, tuple[str, str]]:
    """Return status and reason by type of the conditions that were decided."""
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in decision.status["conditions"]}


def orders(decision: Decision) -> list[str]:
    """Return the actions in one word each."""
    words = []
    for action in (*decision.actions, *decision.afterwards):
        match action:
            case Create():
                words.append(f"create {action.manifest['metadata']['name']}")
            case Patch():
                words.append(f"patch {action.name}")
            case Delete():
                words.append(f"delete {action.name}")
            case Announce():
                words.append(f"announce {action.reason}")
    return words


def revision(
    number: int, name: str, *, baseline: str = "baseline", job_uid: str = "other", gates: bool = True
) -> Revision:
    """Return a revision of the release `digits`."""
    spec = order().spec
    return Revision(
        name=names.revision_name("digits", number),
        uid=f"revision-{number}",
        resource_version="1",
        spec=ModelRevisionSpec(
            release="digits",
            revision=number,
            artifact=artifact(name, 60_000),
            baseline=BASELINE,
            task=spec.task,
            evaluation_data=spec.data.evaluation,
            evaluation=spec.evaluation,
            gates=spec.gates,
            output=spec.output,
            source={"job_name": "other", "job_uid": job_uid, "plan_digest": PLAN},
        ),
    )


def release(*revisions: Revision, **status: Any) -> ReleaseView:
    """Return a release with these revisions."""
    return ReleaseView("digits", RELEASE_UID, ModelReleaseStatus.model_validate(status), revisions)


def advanced(seen: JobSnapshot, decision: Decision, **more: Any) -> JobSnapshot:
    """Return the snapshot with the decided status."""
    return replace(seen, status=told(decision), **more)


def started() -> JobSnapshot:
    """Return a job that compresses."""
    first = snapshot()
    return advanced(first, decide(order(), first, NOW), compress=stage("compress", StageState.ACTIVE))


def evaluating() -> JobSnapshot:
    """Return a job that is compressed and evaluates."""
    second = advanced(started(), decide(order(), started(), NOW), compress=compressed_stage())
    return advanced(second, decide(order(), second, NOW), evaluate=stage("evaluate", StageState.ACTIVE))


def judged(lost: int = 3, **more: Any) -> JobSnapshot:
    """Return a job whose report has this many answers lost."""
    return advanced(
        evaluating(), decide(order(), evaluating(), NOW), evaluate=evaluated_stage(), report=reading(lost), **more
    )
