"""What the report of a re-evaluation means for the pointer: stay, or go back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from plimsoll_api import gate, names
from plimsoll_api.reasons import Reason
from plimsoll_api.release import ModelReleaseSpec, RejectedDigest
from plimsoll_api.report import Report
from plimsoll_api.spec import Gate
from plimsoll_api.status import ReportRef
from plimsoll_api.verdict import Verdict
from plimsoll_operator.clock import format_time
from plimsoll_operator.release.outcome import MAX_MESSAGE, Course, Outcome
from plimsoll_operator.release.pointer import choose
from plimsoll_operator.release.revisions import Revision

REMEMBERED_REJECTIONS = 64


def judge(
    course: Course,
    spec: ModelReleaseSpec,
    measured: Revision,
    report: Report,
    ref: ReportRef,
    *,
    gates: Sequence[Gate],
    accept_baseline: bool,
) -> Outcome:
    """Judge the report by the gates and end the re-evaluation with what follows."""
    judgement = gate.judge(report, gates, accept_baseline=accept_baseline)
    why = f"{judgement.message}{_elsewhere(measured, report)}"
    about = report.candidate.artifact.digest if report.candidate else None
    if about != measured.digest and (about or judgement.verdict is not Verdict.INCONCLUSIVE):
        return course.error(f"the report is about {about or 'an unnamed artifact'}, not {measured.digest}")
    if judgement.verdict is Verdict.FAIL:
        outcome = _regressed(course, spec, measured, report, why=why)
    elif judgement.verdict is Verdict.PASS:
        outcome = course.ended(Reason.REEVALUATION_PASSED, why, warn=False)
    else:
        outcome = course.ended(Reason.REEVALUATION_INCONCLUSIVE, f"{why}; the pointer stays")
    if outcome.status is None:
        raise ValueError("an ended re-evaluation has a status")
    facts = {
        "verdict": judgement.verdict,
        "checks": judgement.checks,
        "report": ref,
        "measured_on": report.environment.machine,
    }
    evaluate = course.snapshot.evaluate
    seconds = evaluate.seconds if evaluate else None
    return replace(
        outcome,
        status=outcome.status.model_copy(update=facts),
        verdict=judgement.verdict.value,
        measured=((names.STAGE_REEVALUATE, seconds),) if seconds is not None else (),
    )


def _elsewhere(measured: Revision, report: Report) -> str:
    """Return how the machine differs from that which the revision's verdict rests on, nothing where it does not."""
    before = measured.spec.measured_on
    differences = before.differences(report.environment) if before else []
    return f"; measured on another kind of machine than before: {', '.join(differences)}" if differences else ""


def _regressed(course: Course, spec: ModelReleaseSpec, measured: Revision, report: Report, *, why: str) -> Outcome:
    """Reject the digest and go back, but only to bytes that this very evaluation found whole."""
    snapshot = course.snapshot
    current = snapshot.status.current_revision
    rejected = _reject(course.idle.rejected, measured, why, course.now)
    digests = frozenset(item.digest for item in rejected)
    target = choose(snapshot.revisions, pinned=None, current=current, rejected=digests).revision
    if spec.pinned_revision is not None:
        ended = course.ended(Reason.REEVALUATION_FAILED, f"{why}; spec.pinnedRevision holds the pointer")
        return replace(ended, rejected=rejected)
    # A newer revision may have passed its gate meanwhile: it takes over as any does, and nothing goes back.
    before = frozenset(item.digest for item in course.idle.rejected)
    serving = choose(snapshot.revisions, pinned=None, current=current, rejected=before).revision
    if current != measured.number or serving is None or serving.number != measured.number:
        message = f"{why}; revision {measured.number} does not serve any more"
        return replace(course.ended(Reason.REEVALUATION_FAILED, message), rejected=rejected)
    if target is None or target.digest in digests:
        message = f"{why}; there is no other good revision, the pointer stays"
        return replace(course.ended(Reason.NOTHING_TO_ROLL_BACK_TO, message), rejected=rejected)
    fallback = report.fallback
    if fallback is None or fallback.digest != target.digest or not fallback.intact:
        found = fallback.message if fallback and fallback.digest == target.digest else "its bytes were not verified"
        message = f"{why}; revision {target.number} cannot take over: {found}; the pointer stays"
        return course.ended(Reason.FALLBACK_DAMAGED, message)
    message = f"{why}; rolled back from revision {measured.number} to {target.number}"
    return replace(course.ended(Reason.ROLLED_BACK, message), rejected=rejected, rolled_back=True)


def _reject(rejected: Sequence[RejectedDigest], revision: Revision, why: str, now: datetime) -> list[RejectedDigest]:
    entry = RejectedDigest(
        digest=revision.digest,
        revision=revision.number,
        reason=Reason.REEVALUATION_FAILED,
        message=why[:MAX_MESSAGE],
        time=format_time(now),
    )
    others = [item for item in rejected if item.digest != revision.digest]
    return [*others, entry][-REMEMBERED_REJECTIONS:]
