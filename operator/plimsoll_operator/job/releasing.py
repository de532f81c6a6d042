"""A CompressionJob whose gate has passed, on its way to a revision of its release."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from plimsoll_api.reasons import ConditionType, Reason
from plimsoll_api.release import RevisionSource
from plimsoll_operator.actions import Action, Announce, Create, Decision
from plimsoll_operator.cluster.resources import MODEL_REVISIONS
from plimsoll_operator.conditions import Say
from plimsoll_operator.job import build, tell
from plimsoll_operator.job.snapshot import JobSnapshot, Order
from plimsoll_operator.job.tell import Phase
from plimsoll_operator.release.revisions import ReleaseView

WAIT_FOR_RELEASE_SECONDS = 60.0


def decide_release(order: Order, snapshot: JobSnapshot, now: datetime) -> Decision:
    """Make the proved candidate a revision, once."""
    status = snapshot.status
    if order.spec.release_ref is None:
        message = "the gate passed; the job names no release"
        says = [Say(ConditionType.RELEASED, False, Reason.NO_RELEASE, message)]
        done = tell.succeeded(snapshot, now, Reason.GATE_PASSED, message, also=says)
        return Decision(status=done.to_wire())
    release = snapshot.release
    if release is None:
        message = f"ModelRelease {order.spec.release_ref.name} does not exist; the job waits for it"
        says = [Say(ConditionType.RELEASED, False, Reason.RELEASE_NOT_FOUND, message)]
        waits = tell.goes_on(snapshot, now, Phase.RELEASING, Reason.RELEASE_NOT_FOUND, message, also=says)
        return Decision(status=waits.to_wire(), again_after_seconds=WAIT_FOR_RELEASE_SECONDS)
    if status.artifact is None or status.baseline is None or status.plan_digest is None:
        return tell.failed(snapshot, now, Reason.STAGE_FAILED, "the status names no artifacts to release")
    made = release.of_job(snapshot.uid, status.artifact.digest)
    if made is not None:
        return _released(snapshot, now, release, made.number)
    if release.rejects(status.artifact.digest):
        message = f"ModelRelease {release.name} rejected {status.artifact.digest} before"
        says = [Say(ConditionType.RELEASED, False, Reason.DIGEST_REJECTED, message)]
        return tell.failed(snapshot, now, Reason.DIGEST_REJECTED, message, phase=Phase.REJECTED, also=says)
    actions, number = _new_revisions(order, snapshot, release)
    decision = _released(snapshot, now, release, number)
    return replace(decision, actions=(*actions, *decision.actions))


def _new_revisions(order: Order, snapshot: JobSnapshot, release: ReleaseView) -> tuple[tuple[Action, ...], int]:
    """Return what makes the candidate a revision, and its number; the baseline goes first into an empty release.

    A number is taken by creating the object of that name, which only one job can.
    """
    status = snapshot.status
    if status.artifact is None or status.baseline is None or status.plan_digest is None:
        raise ValueError("the status names no artifacts to release")
    number = release.next_number()
    owner = build.release_owner(snapshot.namespace, release.name, release.uid)
    source = RevisionSource(job_name=snapshot.name, job_uid=snapshot.uid, plan_digest=status.plan_digest)
    actions: list[Action] = []
    if number == 1:
        baseline = build.revision(
            release=owner,
            number=number,
            spec=order.spec,
            artifact=status.baseline,
            baseline=status.baseline,
            source=source,
            measured_on=status.measured_on,
        )
        actions.append(Create(MODEL_REVISIONS, baseline, "the release has nothing yet to go back to"))
        number += 1
    candidate = build.revision(
        release=owner,
        number=number,
        spec=order.spec,
        artifact=status.artifact,
        baseline=status.baseline,
        source=source,
        summary=status.summary,
        report=status.report,
        measured_on=status.measured_on,
    )
    actions.append(Create(MODEL_REVISIONS, candidate, "its gate passed"))
    return tuple(actions), number


def _released(snapshot: JobSnapshot, now: datetime, release: ReleaseView, number: int) -> Decision:
    message = f"the gate passed; the candidate is revision {number} of ModelRelease {release.name}"
    says = [Say(ConditionType.RELEASED, True, Reason.RELEASED, message)]
    status = tell.succeeded(snapshot, now, Reason.RELEASED, message, also=says, revision=number)
    return Decision(status=status.to_wire(), actions=(Announce(Reason.RELEASED, message),))
