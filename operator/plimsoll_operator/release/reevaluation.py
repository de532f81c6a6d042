"""A re-evaluation on its way: which wish is due, how far it is, and when its report can be judged."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from plimsoll_api import names
from plimsoll_api.reasons import Reason
from plimsoll_api.release import ModelReleaseSpec, ReevaluationStatus
from plimsoll_api.report import Summary
from plimsoll_api.status import ReportRef
from plimsoll_operator.actions import Create, Delete
from plimsoll_operator.clock import format_time
from plimsoll_operator.cluster.resources import BATCH_JOBS
from plimsoll_operator.job.build import outside_of
from plimsoll_operator.release import build
from plimsoll_operator.release.outcome import MAX_MESSAGE, Course, Outcome
from plimsoll_operator.release.regression import judge
from plimsoll_operator.release.revisions import Revision, last_good
from plimsoll_operator.release.snapshot import ReleaseSnapshot
from plimsoll_operator.release.wishes import Wish, evaluation_settings, standing_wishes, unfit
from plimsoll_operator.stage import Stage, StageState

LOOK_SECONDS = 15.0
WAIT_SECONDS = 5.0


def step(spec: ModelReleaseSpec, snapshot: ReleaseSnapshot, default_image: str, now: datetime) -> Outcome:
    """Take the re-evaluation that runs one step further, else begin the one that is due."""
    status = snapshot.status
    idle = Outcome(status.reevaluation, list(status.rejected), list(status.reevaluated))
    wishes = standing_wishes(spec, snapshot.reevaluate)
    running = status.reevaluation
    if running is None or running.completion_time is not None:
        due = next((wish for wish in wishes if wish.digest not in status.reevaluated), None)
        current = snapshot.revision(status.current_revision)
        return idle if due is None or current is None else _begin(idle, due, current, now)
    course = Course(idle, snapshot, wishes, now)
    wish = next((wish for wish in wishes if wish.digest == running.request_digest), None)
    measured = snapshot.revision(running.revision)
    # Its batch Job is what a person's words can make the API server refuse; the pointer must not wait for it.
    if wish is None or measured is None or snapshot.refused is not None:
        gone = "the wish was withdrawn" if wish is None else f"revision {running.revision} is gone"
        return course.error(snapshot.refused.message if snapshot.refused else gone)
    stage = snapshot.evaluate
    if stage is None or stage.state is StageState.ABSENT:
        return _start(course, wish, measured, default_image)
    if stage.state is StageState.DONE and stage.summary is not None:
        return _read(course, spec, wish, measured, stage.summary, default_image=default_image)
    return _wait(course, stage)


def _begin(idle: Outcome, due: Wish, current: Revision, now: datetime) -> Outcome:
    """Write down what is measured before anything is started, so that a restart measures the same."""
    begun = ReevaluationStatus(
        id=due.id,
        request_digest=due.digest,
        revision=current.number,
        reason=Reason.REEVALUATING,
        message=f"revision {current.number} is being measured again",
        start_time=format_time(now),
    )
    return replace(idle, status=begun, again_after_seconds=0.0)


def _start(course: Course, wish: Wish, measured: Revision, default_image: str) -> Outcome:
    if problem := unfit(wish, measured):
        return course.error(problem)
    snapshot = course.snapshot
    manifest = build.reevaluation_job(
        owner=snapshot.owner,
        request_digest=wish.digest,
        wish=wish.how,
        revision=measured,
        fallback=last_good(snapshot.revisions, course.idle.rejected_digests, measured),
        default_image=default_image,
    )
    create = Create(BATCH_JOBS, manifest, f"re-evaluation {wish.id} was asked for")
    return replace(course.idle, actions=(create,), again_after_seconds=LOOK_SECONDS)


def _read(
    course: Course, spec: ModelReleaseSpec, wish: Wish, measured: Revision, summary: Summary, *, default_image: str
) -> Outcome:
    """Judge the report; where it cannot be read, have it printed again."""
    if summary.report_uri is None or summary.report_digest is None:
        return course.error("the evaluation ended well but names no report")
    stray = outside_of(measured.spec.output.uri, [summary.report_uri])
    if stray:
        return course.error(f"the evaluation names {stray}, outside of the revision's store")
    ref = ReportRef(uri=summary.report_uri, digest=summary.report_digest)
    snapshot = course.snapshot
    reading, printed = snapshot.report, snapshot.print_report
    if reading is not None and reading.report is not None:
        gates = (wish.how.gates if wish.how else []) or measured.spec.gates
        settings = evaluation_settings(wish.how, measured)
        return judge(course, spec, measured, reading.report, ref, gates=gates, accept_baseline=settings.accept_baseline)
    problem = reading.problem if reading else "it was not read"
    if printed is None or printed.state is StageState.ABSENT:
        manifest = build.print_reevaluation_report(
            owner=snapshot.owner,
            job_name=names.reevaluation_name(snapshot.name, wish.digest),
            wish=wish.how,
            revision=measured,
            report=ref,
            default_image=default_image,
        )
        create = Create(BATCH_JOBS, manifest, f"the report is printed again: {problem}")
        return replace(course.idle, actions=(create,), again_after_seconds=LOOK_SECONDS)
    if printed.state is StageState.DONE:
        return course.error(f"{ref.uri}: {problem}")
    return _wait(course, printed)


def _wait(course: Course, stage: Stage) -> Outcome:
    """Wait for a batch Job of the re-evaluation, mend it, or give up with it."""
    problem, idle = stage.problem, course.idle
    if stage.state is StageState.FAILED and problem:
        return course.error(f"{stage.name}: {problem.reason}: {problem.message}")
    if stage.state is StageState.LOST:
        deletion = Delete(BATCH_JOBS, stage.name, stage.uid, "its pod is gone and with it the result")
        return replace(idle, actions=(deletion,), again_after_seconds=WAIT_SECONDS)
    if stage.state in (StageState.LEAVING, StageState.FOREIGN):
        return replace(idle, again_after_seconds=WAIT_SECONDS)
    if problem and problem.hopeless:
        return course.error(problem.message)
    running = idle.status
    if running is not None and problem is not None:
        running = running.model_copy(update={"message": problem.message[:MAX_MESSAGE]})
    return replace(idle, status=running, again_after_seconds=LOOK_SECONDS)
