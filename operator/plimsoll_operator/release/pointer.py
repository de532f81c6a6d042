"""Which revision serves: the one rule by which the pointer moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plimsoll_api.reasons import Reason
from plimsoll_operator.release.revisions import Revision, newest_eligible


@dataclass(frozen=True, slots=True)
class Choice:
    """The revision that should serve, if any, and why."""

    revision: Revision | None
    reason: Reason
    message: str


def choose(
    revisions: Sequence[Revision], *, pinned: int | None, current: int | None, rejected: frozenset[str]
) -> Choice:
    """Return what should serve: a person's pin, else the newest revision that was not rejected, else what serves now.

    Every revision but a baseline has passed its gate before it was made.
    """
    serving = next((revision for revision in revisions if revision.number == current), None)
    if pinned is not None:
        wanted = next((revision for revision in revisions if revision.number == pinned), None)
        if wanted is not None:
            return Choice(wanted, Reason.PINNED, f"revision {pinned} serves: spec.pinnedRevision says so")
        message = f"spec.pinnedRevision: there is no revision {pinned}"
        return Choice(serving, Reason.PINNED_REVISION_NOT_FOUND, message)
    newest = newest_eligible(revisions, rejected)
    if newest is not None:
        return Choice(newest, Reason.SERVING, f"revision {newest.number} serves")
    if serving is not None:
        message = f"revision {serving.number} serves though it was rejected: there is no other"
        return Choice(serving, Reason.NOTHING_TO_ROLL_BACK_TO, message)
    return Choice(None, Reason.NO_REVISION, "no job has released anything yet")
