"""A re-evaluation: which wish is due, how far it is, and what its report means for the pointer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from plimsoll_api import gate, names
from plimsoll_api.model import canonical_json, digest_of
from plimsoll_api.reasons import Reason
from plimsoll_api.release import ModelReleaseSpec, Reevaluation, ReevaluationStatus, RejectedDigest
from plimsoll_api.report import Report
from plimsoll_api.status import ReportRef
from plimsoll_api.verdict import Judgement, Verdict
from plimsoll_operator.actions import Action, Announce, Create, Delete
from plimsoll_operator.clock import format_time
from plimsoll_operator.cluster.resources import BATCH_JOBS
from plimsoll_operator.release import build
from plimsoll_operator.release.pointer import choose
from plimsoll_operator.release.revisions import Revision, last_good
from plimsoll_operator.release.snapshot import ReleaseSnapshot
from plimsoll_operator.stage import Stage, StageState

REMEMBERED_WISHES = 32
REMEMBERED_REJECTIONS = 64
MAX_MESSAGE = 1024
LOOK_SECONDS = 15.0
WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Wish:
    """One standing wish to measure the current revision again."""

    id: str
    digest: str
    how: Reevaluation | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the re-evaluation adds to the release's status, and what it wants done."""

    status: ReevaluationStatus | None
    rejected: list[RejectedDigest]
    reevaluated: list[str]
    rolled_back: bool = False
    actions: tuple[Action, ...] = ()
    afterwards: tuple[Action, ...] = ()
    again_after_seconds: float | None = None
    verdict: str | None = None
    measured: tuple[tuple[str, float], ...] = ()

    @property
    def rejected_digests(self) -> frozenset[str]:
        """The digests that may not serve."""
        return frozenset(rejected.digest for rejected in self.rejected)


def standing_wishes(spec: ModelReleaseSpec, annotation: str | None) -> list[Wish]:
    """Return the wishes that stand now: the spec's and the annotation's, each told apart by the digest of its value."""
    wishes = []
    if spec.reevaluation is not None:
        digest = digest_of(canonical_json({"spec": spec.reevaluation.to_wire()}))
        wishes.append(Wish(spec.reevaluation.id, digest, spec.reevaluation))
    if annotation:
        digest = digest_of(canonical_json({"annotation": annotation}))
        # The annotation says when; how stands in the spec, where it does.
        wishes.append(Wish(annotation[:128], digest, spec.reevaluation))
    return wishes


def step(spec: ModelReleaseSpec, snapshot: ReleaseSnapshot, default_image: str, now: datetime) -> Outcome:
    """Take the re-evaluation that runs one step further, else begin the one that is due."""
    status = snapshot.status
    idle = Outcome(status.reevaluation, list(status.rejected), list(status.reevaluated))
    wishes = standing_wishes(spec, snapshot.reevaluate)
    running = status.reevaluation
    if running is None or running.completion_time is not None:
        due = next((wish for wish in wishes if wish.digest not in status.reevaluated), None)
        current = snapshot.revision(status.current_revision)
        return idle if due is None or current is None else _begin(idle, snapshot, due, current, now)
    wish = next((wish for wish in wishes if wish.digest == running.request_digest), None)
    measured = snapshot.revision(running.revision)
    if wish is None or measured is None:
        what = "the wish was withdrawn" if wish is None else f"revision {running.revision} is gone"
        return _error(idle, snapshot, wishes, now, what)
    return _carry_on(idle, spec, snapshot, wishes, wish, measured, default_image, now)


def _begin(idle: Outcome, snapshot: ReleaseSnapshot, due: Wish, current: Revision, now: datetime) -> Outcome:
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


def _carry_on(
    idle: Outcome,
    spec: ModelReleaseSpec,
    snapshot: ReleaseSnapshot,
    wishes: Sequence[Wish],
    wish: Wish,
    measured: Revision,
    default_image: str,
    now: datetime,
) -> Outcome:
    stage = snapshot.evaluate
    if stage is None or stage.state is StageState.ABSENT:
        manifest = build.reevaluation_job(
            owner=snapshot.owner,
            request_digest=wish.digest,
            wish=wish.how,
            revision=measured,
            fallback=last_good(snapshot.revisions, idle.rejected_digests, measured),
            default_image=default_image,
        )
        create = Create(BATCH_JOBS, manifest, f"re-evaluation {wish.id} was asked for")
        return replace(idle, actions=(create,), again_after_seconds=LOOK_SECONDS)
    if stage.state is not StageState.DONE or stage.summary is None:
        return _wait(idle, snapshot, wishes, stage, now)
    uri, digest = stage.summary.report_uri, stage.summary.report_digest
    if uri is None or digest is None:
        return _error(idle, snapshot, wishes, now, "the evaluation ended well but names no report")
    ref = ReportRef(uri=uri, digest=digest)
    reading = snapshot.report
    if reading is not None and reading.report is not None:
        return _judge(idle, spec, snapshot, wishes, wish, measured, reading.report, ref, now)
    printed = snapshot.print_report
    if printed is None or printed.state is StageState.ABSENT:
        manifest = build.print_reevaluation_report(
            owner=snapshot.owner,
            job_name=names.reevaluation_name(snapshot.name, wish.digest),
            wish=wish.how,
            revision=measured,
            report=ref,
            default_image=default_image,
        )
        create = Create(BATCH_JOBS, manifest, f"the report is printed again: {reading.problem if reading else ''}")
        return replace(idle, actions=(create,), again_after_seconds=LOOK_SECONDS)
    if printed.state is StageState.DONE:
        return _error(idle, snapshot, wishes, now, f"{uri}: {reading.problem if reading else 'not read'}")
    return _wait(idle, snapshot, wishes, printed, now)


def _wait(idle: Outcome, snapshot: ReleaseSnapshot, wishes: Sequence[Wish], stage: Stage, now: datetime) -> Outcome:
    """Wait for a batch Job of the re-evaluation, mend it, or give up with it."""
    problem = stage.problem
    if stage.state is StageState.FAILED and problem:
        return _error(idle, snapshot, wishes, now, f"{stage.name}: {problem.reason}: {problem.message}")
    if stage.state is StageState.LOST:
        deletion = Delete(BATCH_JOBS, stage.name, stage.uid, "its pod is gone and with it the result")
        return replace(idle, actions=(deletion,), again_after_seconds=WAIT_SECONDS)
    if stage.state in (StageState.LEAVING, StageState.FOREIGN):
        return replace(idle, again_after_seconds=WAIT_SECONDS)
    if problem and problem.hopeless:
        outcome = _error(idle, snapshot, wishes, now, problem.message)
        deletion = Delete(BATCH_JOBS, stage.name, stage.uid, "its pod can never start")
        return replace(outcome, afterwards=(deletion,))
    running = idle.status
    if running is not None and problem is not None:
        running = running.model_copy(update={"message": problem.message[:MAX_MESSAGE]})
    return replace(idle, status=running, again_after_seconds=LOOK_SECONDS)


def _judge(
    idle: Outcome,
    spec: ModelReleaseSpec,
    snapshot: ReleaseSnapshot,
    wishes: Sequence[Wish],
    wish: Wish,
    measured: Revision,
    report: Report,
    ref: ReportRef,
    now: datetime,
) -> Outcome:
    """Judge the report by the wish's gates, or those that the revision kept."""
    if report.candidate and report.candidate.artifact.digest != measured.digest:
        return _error(idle, snapshot, wishes, now, f"the report is about {report.candidate.artifact.digest}")
    judgement = gate.judge(report, (wish.how.gates if wish.how else []) or measured.spec.gates)
    seconds = snapshot.evaluate.seconds if snapshot.evaluate else None
    told = _Told(idle, snapshot, wishes, now, judgement, ref)
    if judgement.verdict is Verdict.FAIL:
        outcome = _failed(told, spec, measured, report)
    elif judgement.verdict is Verdict.PASS:
        outcome = told.outcome(Reason.REEVALUATION_PASSED, judgement.message)
    else:
        outcome = told.outcome(Reason.REEVALUATION_INCONCLUSIVE, f"{judgement.message}; the pointer stays", warn=True)
    durations = ((names.STAGE_REEVALUATE, seconds),) if seconds is not None else ()
    return replace(outcome, verdict=judgement.verdict.value, measured=durations)


def _failed(told: _Told, spec: ModelReleaseSpec, measured: Revision, report: Report) -> Outcome:
    """Reject the digest and go back, but only to bytes that this very evaluation found whole."""
    why = told.judgement.message
    snapshot = told.snapshot
    rejected = _reject(told.idle.rejected, measured, why, told.now)
    if spec.pinned_revision is not None:
        message = f"{why}; spec.pinnedRevision holds the pointer"
        return told.outcome(Reason.REEVALUATION_FAILED, message, warn=True, rejected=rejected)
    digests = frozenset(item.digest for item in rejected)
    current = snapshot.status.current_revision
    target = choose(snapshot.revisions, pinned=None, current=current, rejected=digests).revision
    if current != measured.number:
        message = f"{why}; revision {measured.number} does not serve any more"
        return told.outcome(Reason.REEVALUATION_FAILED, message, warn=True, rejected=rejected)
    if target is None or target.digest in digests:
        message = f"{why}; there is no other good revision, the pointer stays"
        return told.outcome(Reason.NOTHING_TO_ROLL_BACK_TO, message, warn=True, rejected=rejected)
    fallback = report.fallback
    if fallback is None or fallback.digest != target.digest or not fallback.intact:
        found = fallback.message if fallback else "it was not verified"
        message = f"{why}; revision {target.number} cannot take over, {found}; the pointer stays"
        return told.outcome(Reason.FALLBACK_DAMAGED, message, warn=True)
    message = f"{why}; rolled back from revision {measured.number} to {target.number}"
    return told.outcome(Reason.ROLLED_BACK, message, warn=True, rejected=rejected, rolled_back=True)


@dataclass(frozen=True, slots=True)
class _Told:
    """A judged re-evaluation that still has to say what follows."""

    idle: Outcome
    snapshot: ReleaseSnapshot
    wishes: Sequence[Wish]
    now: datetime
    judgement: Judgement
    ref: ReportRef

    def outcome(
        self,
        reason: Reason,
        message: str,
        *,
        warn: bool = False,
        rejected: list[RejectedDigest] | None = None,
        rolled_back: bool = False,
    ) -> Outcome:
        facts = {"verdict": self.judgement.verdict, "checks": self.judgement.checks, "report": self.ref}
        ended = _end(self.idle, self.wishes, self.now, reason, message, **facts)
        announcements = (Announce(reason, message, "Warning" if warn else "Normal"),)
        return replace(
            ended,
            rejected=self.idle.rejected if rejected is None else rejected,
            rolled_back=rolled_back,
            actions=announcements,
        )


def _error(idle: Outcome, snapshot: ReleaseSnapshot, wishes: Sequence[Wish], now: datetime, problem: str) -> Outcome:
    """End the re-evaluation without a verdict; nothing moves, and what still runs of it is stopped."""
    message = f"{problem}; the pointer stays"
    ended = _end(idle, wishes, now, Reason.REEVALUATION_ERROR, message)
    leftovers = tuple(
        Delete(BATCH_JOBS, stage.name, stage.uid, "the re-evaluation is over")
        for stage in (snapshot.evaluate, snapshot.print_report)
        if stage is not None and stage.state is StageState.ACTIVE
    )
    announce = Announce(Reason.REEVALUATION_ERROR, message, "Warning")
    return replace(ended, actions=(announce,), afterwards=leftovers)


def _end(
    idle: Outcome, wishes: Sequence[Wish], now: datetime, reason: Reason, message: str, **facts: object
) -> Outcome:
    if idle.status is None:
        raise ValueError("no re-evaluation runs")
    ended = idle.status.model_copy(
        update={"reason": reason, "message": message[:MAX_MESSAGE], "completion_time": format_time(now), **facts}
    )
    return replace(idle, status=ended, reevaluated=_remember(idle.reevaluated, ended.request_digest, wishes))


def _remember(done: Sequence[str], digest: str, wishes: Sequence[Wish]) -> list[str]:
    """Return the carried-out wishes with this one; the oldest are forgotten, but never one that still stands."""
    standing = {wish.digest for wish in wishes}
    remembered = [*(known for known in done if known != digest), digest]
    while len(remembered) > REMEMBERED_WISHES:
        remembered.remove(next(known for known in remembered if known not in standing))
    return remembered


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
