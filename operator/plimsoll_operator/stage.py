"""One stage as a batch Job and its pods show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import ValidationError

from plimsoll_api.report import EXIT_INTERNAL_ERROR, EXIT_REQUEST_WRONG, Outcome, Summary
from plimsoll_operator.views import BatchJobView, PodView

#: A pod that cannot start for a reason that waiting does not mend is given this long, then its job fails.
START_GRACE = timedelta(seconds=60)
#: What keeps a pod from starting is told after this long: most of it passes by itself.
SETTLING = timedelta(seconds=10)
HOPELESS_REASONS = frozenset(
    {"InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "RunContainerError"}
)
MAX_WORDS = 1000
#: Exit codes after which no further pod is tried, and what they tell.
FINAL = {EXIT_REQUEST_WRONG: Outcome.REQUEST_WRONG, EXIT_INTERNAL_ERROR: Outcome.INTERNAL_ERROR}


class StageState(StrEnum):
    """How far a stage is."""

    ABSENT = "Absent"
    FOREIGN = "Foreign"
    """An object of this name belongs to someone else, or to a former job of the same name."""
    LEAVING = "Leaving"
    """It is being deleted."""
    ACTIVE = "Active"
    DONE = "Done"
    LOST = "Lost"
    """It is done, but the pod that tells the result is gone."""
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a stage does not go on, or failed."""

    reason: str
    message: str
    hopeless: bool = False
    #: How the pod said that it ended; none where Kubernetes says why, or nobody does.
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage as it was observed."""

    state: StageState
    name: str
    uid: str = ""
    suspended: bool = False
    started: datetime | None = None
    finished: datetime | None = None
    pod: str | None = None
    """The pod that runs, or that ended well."""
    summary: Summary | None = None
    problem: Problem | None = None

    @property
    def seconds(self) -> float | None:
        """How long it ran, once it has ended."""
        return (self.finished - self.started).total_seconds() if self.finished and self.started else None


def read_stage(name: str, job: BatchJobView | None, pods: Sequence[PodView], owner_uid: str, now: datetime) -> Stage:
    """Return the stage of the batch Job `name` that the object of `owner_uid` owns."""
    if job is None:
        return Stage(StageState.ABSENT, name)
    if job.owner_uid != owner_uid:
        return Stage(StageState.FOREIGN, name, uid=job.uid)
    if job.deleting:
        return Stage(StageState.LEAVING, name, uid=job.uid)
    common = {"uid": job.uid, "suspended": job.suspended, "started": job.started, "finished": job.finished}
    if job.complete:
        return _ended_well(name, pods, common)
    if job.failure:
        return Stage(StageState.FAILED, name, problem=_last_words(job.failure, pods), **common)  # type: ignore[arg-type]
    running = next((pod.name for pod in reversed(pods) if pod.phase == "Running"), None)
    problem = None if job.suspended else _why_waiting(job, pods, now)
    return Stage(StageState.ACTIVE, name, pod=running, problem=problem, **common)  # type: ignore[arg-type]


def parse_summary(text: str) -> Summary | None:
    """Return the summary that a termination message holds, if it is one."""
    try:
        return Summary.model_validate_json(text)
    except ValidationError:
        return None


def _ended_well(name: str, pods: Sequence[PodView], common: dict[str, object]) -> Stage:
    pod = next((pod for pod in reversed(pods) if pod.phase == "Succeeded" and pod.exit_code == 0), None)
    if pod is None:
        return Stage(StageState.LOST, name, **common)  # type: ignore[arg-type]
    summary = parse_summary(pod.termination_message)
    if summary is None or summary.outcome is not Outcome.DONE:
        told = pod.termination_message[:200] or "nothing"
        problem = Problem("StageFailed", f"pod {pod.name} ended well but its message is no summary; it says: {told}")
        return Stage(StageState.FAILED, name, problem=problem, **common)  # type: ignore[arg-type]
    return Stage(StageState.DONE, name, pod=pod.name, summary=summary, **common)  # type: ignore[arg-type]


def _last_words(failure: tuple[str, str], pods: Sequence[PodView]) -> Problem:
    """Say why the batch Job failed in the words of the pod that failed last, else in those of Kubernetes."""
    reason, message = failure
    failed = [pod for pod in pods if pod.exit_code not in (None, 0)]
    pod = next((pod for pod in reversed(failed) if pod.exit_code in FINAL), failed[-1] if failed else None)
    if pod is None:
        return Problem(reason, message)
    summary = parse_summary(pod.termination_message)
    if summary is not None:
        return Problem(summary.reason, summary.message, outcome=summary.outcome)
    words = pod.termination_message.strip()[-MAX_WORDS:] or message
    outcome = None if pod.exit_code is None else FINAL.get(pod.exit_code)
    return Problem(reason, f"pod {pod.name} ended with {pod.exit_code}: {words}", outcome=outcome)


def _why_waiting(job: BatchJobView, pods: Sequence[PodView], now: datetime) -> Problem | None:
    pod = next((pod for pod in reversed(pods) if pod.phase == "Pending" and pod.waiting), None)
    if pod is None or pod.waiting is None:
        return None
    reason, message = pod.waiting
    age = now - (pod.created or job.created or now)
    if age < SETTLING:
        return None
    hopeless = reason in HOPELESS_REASONS and age >= START_GRACE
    return Problem(reason, f"pod {pod.name}: {reason}: {message}"[:MAX_WORDS], hopeless=hopeless)
