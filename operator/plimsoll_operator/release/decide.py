"""What to do about a ModelRelease: a pure function of the spec, what was observed, and the time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from plimsoll_api import names
from plimsoll_api.reasons import ConditionType, Reason
from plimsoll_api.release import ModelReleaseSpec, ModelReleaseStatus, RejectedDigest
from plimsoll_operator import conditions
from plimsoll_operator.actions import Action, Create, Decision, Patch
from plimsoll_operator.clock import format_time
from plimsoll_operator.cluster.resources import CONFIG_MAPS, MODEL_REVISIONS
from plimsoll_operator.conditions import Say
from plimsoll_operator.release import build, reevaluation
from plimsoll_operator.release.outcome import Outcome
from plimsoll_operator.release.pointer import Choice, choose
from plimsoll_operator.release.revisions import Revision, last_good
from plimsoll_operator.release.snapshot import ReleaseSnapshot

SAFETY_SECONDS = 300.0
STUCK = (Reason.FALLBACK_DAMAGED, Reason.NOTHING_TO_ROLL_BACK_TO)


def decide(spec: ModelReleaseSpec, snapshot: ReleaseSnapshot, default_image: str, now: datetime) -> Decision:
    """Return what to do now, and the status that says so.

    The pointer, the rejection and the count of rollbacks change in one patch of the status; the ConfigMap follows it.
    """
    status = snapshot.status
    if snapshot.deleting:
        return Decision(status=status.to_wire())
    outcome = reevaluation.step(spec, snapshot, default_image, now)
    rejected = outcome.rejected_digests
    choice = choose(snapshot.revisions, pinned=spec.pinned_revision, current=status.current_revision, rejected=rejected)
    serving = choice.revision
    fallback = last_good(snapshot.revisions, rejected, serving) if serving else None
    numbers = [status.latest_revision or 0, *(revision.number for revision in snapshot.revisions)]
    foreign = snapshot.config is not None and not snapshot.config.owned
    desired = status.model_copy(
        update={
            "observed_generation": snapshot.generation,
            "current_revision": serving.number if serving else None,
            "current_digest": serving.digest if serving else None,
            "last_good_revision": fallback.number if fallback else None,
            "latest_revision": max(numbers) or None,
            "rollbacks": status.rollbacks + outcome.rolled_back,
            "last_rollback_time": format_time(now) if outcome.rolled_back else status.last_rollback_time,
            "rejected": outcome.rejected,
            "reevaluation": outcome.status,
            "reevaluated": outcome.reevaluated,
            "conditions": conditions.put(
                status.conditions, _says(snapshot, choice, outcome, foreign), now, snapshot.generation
            ),
        }
    )
    follow_up: tuple[Action, ...] = () if foreign or serving is None else _point(snapshot, serving)
    return Decision(
        status=desired.to_wire(),
        actions=outcome.actions,
        afterwards=(*follow_up, *_mark(snapshot.revisions, outcome.rejected, now), *outcome.afterwards),
        again_after_seconds=_again(outcome),
        measured=outcome.measured,
        verdict=outcome.verdict,
    )


def _again(outcome: Outcome) -> float:
    return SAFETY_SECONDS if outcome.again_after_seconds is None else outcome.again_after_seconds


def _says(snapshot: ReleaseSnapshot, choice: Choice, outcome: Outcome, foreign: bool) -> Sequence[Say]:
    serving, reason, message = choice.revision, choice.reason, choice.message
    ready = serving is not None and not foreign
    stalled = reason in (Reason.PINNED_REVISION_NOT_FOUND, *STUCK) or foreign
    told = outcome.status
    if foreign:
        name = names.model_config_name(snapshot.name)
        reason, message = Reason.NAME_TAKEN, f"ConfigMap {name} belongs to someone else and is not overwritten"
    elif told is not None and told.reason in STUCK and serving is not None and told.revision == serving.number:
        stalled, reason, message = True, Reason(told.reason), told.message
    runs = told is not None and told.completion_time is None
    return [
        Say(ConditionType.READY, ready, reason, message),
        Say(
            ConditionType.RECONCILING,
            runs,
            Reason.REEVALUATING if runs else reason,
            told.message if runs and told else "",
        ),
        Say(ConditionType.STALLED, stalled, reason, message if stalled else ""),
        *_rolled_back(snapshot.status, choice, outcome),
    ]


def _rolled_back(status: ModelReleaseStatus, choice: Choice, outcome: Outcome) -> list[Say]:
    """Return the condition RolledBack: True from a rollback until another revision takes over."""
    if outcome.rolled_back and outcome.status is not None:
        return [Say(ConditionType.ROLLED_BACK, True, Reason.ROLLED_BACK, outcome.status.message)]
    told = conditions.find(status.conditions, ConditionType.ROLLED_BACK)
    if told is None:
        return [Say(ConditionType.ROLLED_BACK, False, Reason.NEVER_ROLLED_BACK)]
    moved = choice.revision is not None and choice.revision.number != status.current_revision
    if told.status == "True" and moved:
        return [Say(ConditionType.ROLLED_BACK, False, choice.reason, choice.message)]
    return []


def _point(snapshot: ReleaseSnapshot, serving: Revision) -> tuple[Action, ...]:
    """Return the write that makes the ConfigMap say what the status says, if it does not yet."""
    data = build.model_config_data(serving)
    config = snapshot.config
    why = f"revision {serving.number} serves"
    if config is None:
        return (Create(CONFIG_MAPS, build.model_config(snapshot.owner, serving), why),)
    if config.data == data:
        return ()
    changes: dict[str, str | None] = {key: None for key in config.data if key not in data} | data
    body = {"metadata": {"resourceVersion": config.resource_version}, "data": changes}
    return (Patch(CONFIG_MAPS, names.model_config_name(snapshot.name), body, why),)


def _mark(revisions: Sequence[Revision], rejected: Sequence[RejectedDigest], now: datetime) -> tuple[Action, ...]:
    """Return the writes that make each revision's own condition say whether it is good."""
    reasons = {item.digest: item for item in rejected}
    actions: list[Action] = []
    for revision in revisions:
        no = reasons.get(revision.digest)
        if no is not None:
            say = Say(ConditionType.GOOD, False, Reason(no.reason), no.message)
        elif revision.digest == revision.spec.baseline.digest:
            say = Say(ConditionType.GOOD, True, Reason.RELEASED, "the baseline as it was given")
        else:
            say = Say(ConditionType.GOOD, True, Reason.GATE_PASSED, "its gate passed")
        told = conditions.find(revision.conditions, ConditionType.GOOD)
        if told is not None and (told.status == "True") == say.status:
            continue
        changed = conditions.put(revision.conditions, [say], now, 1)
        body = {
            "metadata": {"resourceVersion": revision.resource_version},
            "status": {"conditions": [condition.to_wire() for condition in changed]},
        }
        actions.append(Patch(MODEL_REVISIONS, revision.name, body, "whether it may serve", subresource="status"))
    return tuple(actions)
