"""A CompressionJob on its way from the plan to the report."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from plimsoll_api import names
from plimsoll_api.plan import Plan
from plimsoll_api.reasons import ConditionType, Reason
from plimsoll_api.report import Outcome, Progress, Summary
from plimsoll_api.status import JobProgress, ReportRef
from plimsoll_operator import conditions
from plimsoll_operator.actions import Action, Create, Decision, Delete, Patch
from plimsoll_operator.clock import format_time
from plimsoll_operator.cluster.resources import BATCH_JOBS, CONFIG_MAPS
from plimsoll_operator.conditions import Say
from plimsoll_operator.job import build, judging, tell
from plimsoll_operator.job.snapshot import LOOK_SECONDS, JobSnapshot, Order
from plimsoll_operator.job.tell import Phase
from plimsoll_operator.stage import Stage, StageState

WAIT_SECONDS = 5.0
PROGRESS_STEP_PERCENT = 5
#: Where each stage begins and ends on the scale of the whole job.
SCALE = {names.STAGE_COMPRESS: (0, 70), names.STAGE_EVALUATE: (70, 99)}
PHASES = {
    names.STAGE_COMPRESS: (Phase.COMPRESSING, Reason.COMPRESSING),
    names.STAGE_EVALUATE: (Phase.EVALUATING, Reason.EVALUATING),
}
#: What a job that ended with its stage is told to have ended by; a stage that failed in any other way is StageFailed.
ENDED_BY: dict[Outcome | None, Reason] = {
    Outcome.REQUEST_WRONG: Reason.REQUEST_WRONG,
    Outcome.INTERNAL_ERROR: Reason.INTERNAL_ERROR,
}
MESSAGES = {
    names.STAGE_COMPRESS: "the model is being compressed",
    names.STAGE_EVALUATE: "baseline and candidate are being measured",
}


def decide_suspended(snapshot: JobSnapshot, now: datetime) -> Decision:
    """Stop what runs and say so; finished stages are kept."""
    stages = (snapshot.compress, snapshot.evaluate, snapshot.print_report)
    actions: list[Action] = [
        _suspend(stage, True) for stage in stages if stage.state is StageState.ACTIVE and not stage.suspended
    ]
    message = "spec.suspend is true; finished stages are kept"
    says = [
        Say(ConditionType.READY, False, Reason.SUSPENDED, message),
        Say(ConditionType.RECONCILING, False, Reason.SUSPENDED),
        Say(ConditionType.STALLED, False, Reason.SUSPENDED),
        Say(ConditionType.SUSPENDED, True, Reason.SUSPENDED, message),
    ]
    status = tell.updated(snapshot, now, says, phase=Phase.SUSPENDED)
    return Decision(status=status.to_wire(), actions=tuple(actions))


def decide_running(order: Order, snapshot: JobSnapshot, now: datetime) -> Decision:
    """Take the job one stage further."""
    made = _made(snapshot)
    first_told = made is not None and snapshot.status.artifact is None
    snapshot = _caught_up(_resumed(snapshot, now), made)
    if snapshot.evaluate.state is StageState.ABSENT and made is None:
        return _compress(order, snapshot, now)
    decision = _evaluate(order, snapshot, now)
    if first_told and snapshot.compress.seconds is not None:
        measured = (names.STAGE_COMPRESS, snapshot.compress.seconds)
        return replace(decision, measured=(measured, *decision.measured))
    return decision


def _caught_up(snapshot: JobSnapshot, made: Summary | None) -> JobSnapshot:
    """Return the snapshot with its status telling what children show, though a crash came before it was told."""
    status = snapshot.status
    changes: dict[str, Any] = {}
    if status.plan_digest is None and snapshot.plan is not None and snapshot.plan.owner_uid == snapshot.uid:
        changes |= {"plan_digest": snapshot.plan.digest, "start_time": status.start_time or snapshot.plan.created}
    if made is not None:
        changes |= {
            "baseline": made.baseline,
            "artifact": made.candidate,
            "compression_peak_memory_bytes": made.peak_memory_bytes,
        }
    return replace(snapshot, status=status.model_copy(update=changes))


def _resumed(snapshot: JobSnapshot, now: datetime) -> JobSnapshot:
    if not conditions.is_true(snapshot.status.conditions, ConditionType.SUSPENDED):
        return snapshot
    says = [Say(ConditionType.SUSPENDED, False, Reason.RESUMED, "spec.suspend is false again")]
    return replace(snapshot, status=tell.updated(snapshot, now, says))


def _made(snapshot: JobSnapshot) -> Summary | None:
    """Return what compress made, from the status if it stands there already: its pod may be gone since."""
    status = snapshot.status
    if status.baseline and status.artifact:
        return Summary(
            outcome=Outcome.DONE,
            reason="Done",
            message="",
            baseline=status.baseline,
            candidate=status.artifact,
            peak_memory_bytes=status.compression_peak_memory_bytes,
        )
    return snapshot.compress.summary if snapshot.compress.state is StageState.DONE else None


def _compress(order: Order, snapshot: JobSnapshot, now: datetime) -> Decision:
    stage = snapshot.compress
    if stage.state is StageState.ABSENT:
        return _start(order, snapshot, now)
    return _carry_on(snapshot, now, stage, names.STAGE_COMPRESS)


def _start(order: Order, snapshot: JobSnapshot, now: datetime) -> Decision:
    """Freeze the plan and start to compress."""
    owner = snapshot.owner
    image = order.spec.runtime.image or order.default_image
    plan = Plan.of(order.spec, image)
    actions: list[Action] = []
    digest = snapshot.status.plan_digest
    if snapshot.plan is not None:
        if snapshot.plan.owner_uid != snapshot.uid:
            return _wait_for(snapshot, now, f"ConfigMap {names.plan_name(snapshot.name)}")
        digest = snapshot.plan.digest
    elif digest is None:
        digest = plan.content_digest()
        actions.append(Create(CONFIG_MAPS, build.plan_config_map(owner, plan), "the plan is frozen"))
    actions.append(Create(BATCH_JOBS, build.compress_job(owner, order.spec, image), "the plan is to be carried out"))
    status = tell.goes_on(
        snapshot,
        now,
        Phase.COMPRESSING,
        Reason.COMPRESSING,
        MESSAGES[names.STAGE_COMPRESS],
        start_time=snapshot.status.start_time or format_time(now),
        plan_digest=digest,
        progress=_progress(snapshot, now, names.STAGE_COMPRESS),
    )
    return Decision(status=status.to_wire(), actions=tuple(actions), again_after_seconds=snapshot.look_again_seconds)


def _evaluate(order: Order, snapshot: JobSnapshot, now: datetime) -> Decision:
    stage, status = snapshot.evaluate, snapshot.status
    if stage.state is StageState.DONE and stage.summary is not None:
        return _judge(order, snapshot, now, stage.summary)
    if stage.state is not StageState.ABSENT:
        return _carry_on(snapshot, now, stage, names.STAGE_EVALUATE)
    if status.baseline is None or status.artifact is None:
        return tell.failed(snapshot, now, Reason.STAGE_FAILED, "compress ended well but names no artifacts")
    stray = build.outside_of(order.spec.output.uri, [status.baseline.uri, status.artifact.uri])
    if stray:
        return tell.failed(snapshot, now, Reason.STAGE_FAILED, f"compress names {stray}, outside of spec.output.uri")
    manifest = build.evaluate_job(
        snapshot.owner,
        order.spec,
        evaluation_image(order),
        baseline=status.baseline,
        candidate=status.artifact,
        compression_peak_memory_bytes=status.compression_peak_memory_bytes,
    )
    progress = _progress(snapshot, now, names.STAGE_EVALUATE)
    message = MESSAGES[names.STAGE_EVALUATE]
    told = tell.goes_on(snapshot, now, Phase.EVALUATING, Reason.EVALUATING, message, progress=progress)
    create = Create(BATCH_JOBS, manifest, "the candidate is to be measured")
    return Decision(status=told.to_wire(), actions=(create,), again_after_seconds=snapshot.look_again_seconds)


def evaluation_image(order: Order) -> str:
    """Return the image that evaluates."""
    return build.evaluation_runtime(order.spec).image or order.default_image


def _judge(order: Order, snapshot: JobSnapshot, now: datetime, summary: Summary) -> Decision:
    """Judge the report; where it cannot be read, have it printed again."""
    if summary.report_uri is None or summary.report_digest is None:
        return tell.failed(snapshot, now, Reason.REPORT_UNREADABLE, "evaluate ended well but names no report")
    stray = build.outside_of(order.spec.output.uri, [summary.report_uri])
    if stray:
        return tell.failed(
            snapshot, now, Reason.REPORT_UNREADABLE, f"evaluate names {stray}, outside of spec.output.uri"
        )
    ref = ReportRef(uri=summary.report_uri, digest=summary.report_digest)
    reading = snapshot.report
    if reading is not None and reading.report is not None:
        return judging.decide_verdict(order, snapshot, now, reading.report, ref)
    again = snapshot.print_report
    if again.state is StageState.ABSENT:
        manifest = build.print_job_report(snapshot.owner, order.spec, evaluation_image(order), ref)
        message = f"the report is printed again: {reading.problem if reading else 'it was not read'}"
        status = tell.goes_on(snapshot, now, Phase.EVALUATING, Reason.REPORT_UNREADABLE, message)
        create = Create(BATCH_JOBS, manifest, message)
        return Decision(status=status.to_wire(), actions=(create,), again_after_seconds=LOOK_SECONDS)
    if again.state is StageState.DONE:
        problem = reading.problem if reading else "it was not read"
        return tell.failed(snapshot, now, Reason.REPORT_UNREADABLE, f"{ref.uri}: {problem}")
    return _carry_on(snapshot, now, again, names.STAGE_EVALUATE)


def _carry_on(snapshot: JobSnapshot, now: datetime, stage: Stage, scale: str) -> Decision:
    """Wait for a stage, mend it, or end with it."""
    phase, reason = PHASES[scale]
    if stage.state is StageState.FOREIGN:
        return _wait_for(snapshot, now, f"batch Job {stage.name}")
    if stage.state is StageState.FAILED and stage.problem:
        problem = stage.problem
        told = ENDED_BY.get(problem.outcome, Reason.STAGE_FAILED)
        return tell.failed(snapshot, now, told, f"{stage.name}: {problem.reason}: {problem.message}")
    if stage.state is StageState.LOST:
        why = "its pod is gone and with it the result; finished work is found again in the store"
        status = tell.goes_on(snapshot, now, phase, reason, f"{stage.name} runs again: {why}")
        deletion = Delete(BATCH_JOBS, stage.name, stage.uid, why)
        return Decision(status=status.to_wire(), actions=(deletion,), again_after_seconds=WAIT_SECONDS)
    if stage.state is StageState.LEAVING:
        status = tell.goes_on(snapshot, now, phase, reason, f"waiting for {stage.name} to be deleted")
        return Decision(status=status.to_wire(), again_after_seconds=WAIT_SECONDS)
    actions: tuple[Action, ...] = (_suspend(stage, False),) if stage.suspended else ()
    if stage.problem is not None:
        return _cannot_start(snapshot, now, stage, phase)
    progress = _progress(snapshot, now, scale)
    status = tell.goes_on(snapshot, now, phase, reason, MESSAGES[scale], progress=progress)
    return Decision(status=status.to_wire(), actions=actions, again_after_seconds=snapshot.look_again_seconds)


def _cannot_start(snapshot: JobSnapshot, now: datetime, stage: Stage, phase: Phase) -> Decision:
    problem = stage.problem
    if problem is None:
        raise ValueError("the stage has no problem")
    if problem.hopeless:
        decision = tell.failed(snapshot, now, Reason.POD_CANNOT_START, problem.message)
        deletion = Delete(BATCH_JOBS, stage.name, stage.uid, "its pod can never start")
        return replace(decision, afterwards=(deletion,))
    status = tell.goes_on(snapshot, now, phase, Reason.POD_CANNOT_START, problem.message)
    return Decision(status=status.to_wire(), again_after_seconds=LOOK_SECONDS)


def _wait_for(snapshot: JobSnapshot, now: datetime, what: str) -> Decision:
    message = f"{what} belongs to another object; waiting for it to go"
    status = tell.goes_on(snapshot, now, Phase.PENDING, Reason.PENDING, message)
    return Decision(status=status.to_wire(), again_after_seconds=WAIT_SECONDS)


def _suspend(stage: Stage, suspend: bool) -> Patch:
    why = "spec.suspend is true" if suspend else "spec.suspend is false"
    return Patch(BATCH_JOBS, stage.name, {"metadata": {"uid": stage.uid}, "spec": {"suspend": suspend}}, why)


def _progress(snapshot: JobSnapshot, now: datetime, stage: str) -> JobProgress:
    """Return the progress to tell: the old one unless enough has changed to be worth a write."""
    begin, end = SCALE[stage]
    heard = snapshot.progress or Progress(stage=stage, percent=0)
    percent = begin + heard.percent * (end - begin) // 100
    old = snapshot.status.progress
    if old is not None and old.percent >= begin:
        small = abs(percent - old.percent) < PROGRESS_STEP_PERCENT and old.stage == heard.stage
        if snapshot.progress is None or small:
            return old
    return JobProgress(stage=heard.stage, percent=percent, message=heard.message, last_update_time=format_time(now))
