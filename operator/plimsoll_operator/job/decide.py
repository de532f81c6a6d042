"""What to do about a CompressionJob: a pure function of the order, what was observed, and the time.

The way: freeze the plan and compress; evaluate what was made; judge the report; release. Each reading of the same
cluster gives the same decision, so that it may be taken again at any time.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from plimsoll_api.reasons import ConditionType, Reason
from plimsoll_api.status import CompressionJobStatus
from plimsoll_operator import conditions
from plimsoll_operator.actions import Action, Decision, Delete
from plimsoll_operator.clock import parse_time
from plimsoll_operator.cluster.resources import BATCH_JOBS, COMPRESSION_JOBS
from plimsoll_operator.job import build, releasing, running, tell
from plimsoll_operator.job.snapshot import JobSnapshot, Order
from plimsoll_operator.stage import StageState

SAFETY_SECONDS = 300.0
"""A job that waits for something is looked at again after this long, whatever the watches tell."""


def decide(order: Order, snapshot: JobSnapshot, now: datetime) -> Decision:
    """Return what to do now, and the status that says so."""
    if snapshot.deleting:
        return Decision(status=snapshot.status.to_wire())
    if is_over(snapshot.status):
        return _after_the_end(order, snapshot, now)
    decision = _before_the_end(order, snapshot, now)
    if decision.status.get("completionTime"):
        return replace(decision, again_after_seconds=order.spec.ttl_seconds_after_finished)
    return decision


def _before_the_end(order: Order, snapshot: JobSnapshot, now: datetime) -> Decision:
    if snapshot.refused is not None:
        return tell.refused(snapshot, now, snapshot.refused)
    if snapshot.status.verdict is not None:
        return releasing.decide_release(order, snapshot, now)
    refusal = _refusal(order)
    if refusal:
        return tell.failed(snapshot, now, Reason.REQUEST_WRONG, refusal)
    left = _seconds_left(order, snapshot, now)
    if left is not None and left <= 0:
        limit = order.spec.active_deadline_seconds
        late = tell.failed(snapshot, now, Reason.DEADLINE_EXCEEDED, f"it ran longer than {limit} s")
        return replace(late, afterwards=_leftovers(snapshot))
    if order.spec.suspend:
        return running.decide_suspended(snapshot, now)
    decision = running.decide_running(order, snapshot, now)
    waits = [seconds for seconds in (decision.again_after_seconds, left, SAFETY_SECONDS) if seconds is not None]
    return replace(decision, again_after_seconds=min(waits))


def is_over(status: CompressionJobStatus) -> bool:
    """Say whether the job has ended, one way or the other."""
    return any(conditions.is_true(status.conditions, kind) for kind in (ConditionType.COMPLETE, ConditionType.FAILED))


def _after_the_end(order: Order, snapshot: JobSnapshot, now: datetime) -> Decision:
    """Keep status.observedGeneration true, and delete the job when its time has come."""
    status = snapshot.status.model_copy(update={"observed_generation": snapshot.generation})
    leftovers = _leftovers(snapshot)
    seconds = order.spec.ttl_seconds_after_finished
    ended = parse_time(status.completion_time)
    if seconds is None or ended is None:
        return Decision(status=status.to_wire(), afterwards=leftovers)
    left = (ended + timedelta(seconds=seconds) - now).total_seconds()
    if left > 0:
        return Decision(status=status.to_wire(), afterwards=leftovers, again_after_seconds=left)
    deletion = Delete(COMPRESSION_JOBS, snapshot.name, snapshot.uid, f"it ended {seconds} s ago")
    return Decision(status=status.to_wire(), afterwards=(deletion,))


def _refusal(order: Order) -> str | None:
    leak = build.leaked_evaluation_data(order.spec)
    if leak:
        return (
            f"spec.data.evaluation.uri: {order.spec.data.evaluation.uri} lies in {leak}, which the compress pod "
            "mounts; keep evaluation data where the compression cannot see it"
        )
    return None


def _seconds_left(order: Order, snapshot: JobSnapshot, now: datetime) -> float | None:
    """Return how long the job may still run; a resumed job has its whole time again, as a batch Job has."""
    if order.spec.active_deadline_seconds is None or order.spec.suspend:
        return None
    started = parse_time(snapshot.status.start_time)
    if started is None:
        return float(order.spec.active_deadline_seconds)
    paused = conditions.find(snapshot.status.conditions, ConditionType.SUSPENDED)
    if paused is not None and paused.status == "True":
        return float(order.spec.active_deadline_seconds)
    begin = max(started, conditions.since(paused) or started)
    return (begin + timedelta(seconds=order.spec.active_deadline_seconds) - now).total_seconds()


def _leftovers(snapshot: JobSnapshot) -> tuple[Action, ...]:
    """Return the deletion of what still runs though the job is over. What has ended stays: its log is of use."""
    stages = (snapshot.compress, snapshot.evaluate, snapshot.print_report)
    return tuple(
        Delete(BATCH_JOBS, stage.name, stage.uid, "the CompressionJob is over")
        for stage in stages
        if stage.state is StageState.ACTIVE
    )
