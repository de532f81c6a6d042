"""The status of a CompressionJob as people and kstatus read it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from plimsoll_api.reasons import ConditionType, Reason
from plimsoll_api.status import CompressionJobStatus, JobProgress
from plimsoll_operator import conditions
from plimsoll_operator.actions import Announce, Decision, Refusal
from plimsoll_operator.clock import format_time
from plimsoll_operator.conditions import Say
from plimsoll_operator.job.snapshot import JobSnapshot

#: What is not allowed may be allowed later: a quota grows, a right is granted.
NOT_ALLOWED_SECONDS = 60.0


class Phase(StrEnum):
    """One word for people; programs read the conditions."""

    PENDING = "Pending"
    COMPRESSING = "Compressing"
    EVALUATING = "Evaluating"
    RELEASING = "Releasing"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    REJECTED = "Rejected"
    INCONCLUSIVE = "Inconclusive"
    FAILED = "Failed"


def updated(snapshot: JobSnapshot, now: datetime, says: Sequence[Say], **changes: Any) -> CompressionJobStatus:
    """Return the status with these conditions and fields changed."""
    status = snapshot.status
    told = conditions.put(status.conditions, says, now, snapshot.generation)
    return status.model_copy(update={"observed_generation": snapshot.generation, "conditions": told, **changes})


def goes_on(
    snapshot: JobSnapshot,
    now: datetime,
    phase: Phase,
    reason: Reason,
    message: str,
    *,
    also: Sequence[Say] = (),
    **changes: Any,
) -> CompressionJobStatus:
    """Return the status of a job that is under way: kstatus reads InProgress."""
    says = [
        Say(ConditionType.READY, False, reason, message),
        Say(ConditionType.RECONCILING, True, reason, message),
        Say(ConditionType.STALLED, False, reason),
        *also,
    ]
    return updated(snapshot, now, says, phase=phase, **changes)


def failed(
    snapshot: JobSnapshot,
    now: datetime,
    reason: Reason,
    message: str,
    *,
    phase: Phase = Phase.FAILED,
    also: Sequence[Say] = (),
    **changes: Any,
) -> Decision:
    """Return the end of a job that made nothing to serve: kstatus reads Failed."""
    says = [
        Say(ConditionType.READY, False, reason, message),
        Say(ConditionType.RECONCILING, False, reason),
        Say(ConditionType.STALLED, True, reason, message),
        Say(ConditionType.FAILED, True, reason, message),
        *also,
    ]
    status = updated(snapshot, now, says, phase=phase, completion_time=format_time(now), progress=None, **changes)
    return Decision(status=status.to_wire(), actions=(Announce(reason, message, "Warning"),))


def refused(snapshot: JobSnapshot, now: datetime, refusal: Refusal) -> Decision:
    """Return the end of a job whose child is invalid, or the wait of one that may not have its child as yet."""
    if refusal.invalid:
        return failed(snapshot, now, Reason.REQUEST_WRONG, refusal.message)
    phase = Phase(snapshot.status.phase or Phase.PENDING)
    status = goes_on(snapshot, now, phase, Reason.NOT_ALLOWED, refusal.message)
    return Decision(status=status.to_wire(), again_after_seconds=NOT_ALLOWED_SECONDS)


def succeeded(
    snapshot: JobSnapshot, now: datetime, reason: Reason, message: str, *, also: Sequence[Say], **changes: Any
) -> CompressionJobStatus:
    """Return the status of a job that proved its model: kstatus reads Current."""
    says = [
        Say(ConditionType.READY, True, reason, message),
        Say(ConditionType.RECONCILING, False, reason),
        Say(ConditionType.STALLED, False, reason),
        Say(ConditionType.COMPLETE, True, reason, message),
        *also,
    ]
    progress = JobProgress(stage="done", percent=100, last_update_time=format_time(now))
    return updated(
        snapshot,
        now,
        says,
        phase=Phase.SUCCEEDED,
        completion_time=format_time(now),
        progress=progress,
        **changes,
    )
