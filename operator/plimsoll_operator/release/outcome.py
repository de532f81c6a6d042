"""What a re-evaluation adds to a release's status, and what it wants done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from plimsoll_api.reasons import Reason
from plimsoll_api.release import ReevaluationStatus, RejectedDigest
from plimsoll_operator.actions import Action, Announce, Delete
from plimsoll_operator.clock import format_time
from plimsoll_operator.cluster.resources import BATCH_JOBS
from plimsoll_operator.release.snapshot import ReleaseSnapshot
from plimsoll_operator.release.wishes import Wish, remember
from plimsoll_operator.stage import StageState

MAX_MESSAGE = 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """The parts of the release's status that a re-evaluation changes, and its actions."""

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


@dataclass(frozen=True, slots=True)
class Course:
    """A re-evaluation that runs: where it started from, and how it may end."""

    idle: Outcome
    """The outcome in which nothing changes."""
    snapshot: ReleaseSnapshot
    wishes: Sequence[Wish]
    now: datetime

    def ended(self, reason: Reason, message: str, *, warn: bool = True, **facts: Any) -> Outcome:
        """Return the outcome in which the re-evaluation is over for this reason, and an Event says so."""
        running = self.idle.status
        if running is None:
            raise ValueError("no re-evaluation runs")
        told = {"reason": reason, "message": message[:MAX_MESSAGE], "completion_time": format_time(self.now)}
        return replace(
            self.idle,
            status=running.model_copy(update={**told, **facts}),
            reevaluated=remember(self.idle.reevaluated, running.request_digest, self.wishes),
            actions=(Announce(reason, message, "Warning" if warn else "Normal"),),
        )

    def error(self, problem: str) -> Outcome:
        """Return the outcome without a verdict: nothing moves, and what still runs of it is stopped."""
        leftovers = tuple(
            Delete(BATCH_JOBS, stage.name, stage.uid, "the re-evaluation is over")
            for stage in (self.snapshot.evaluate, self.snapshot.print_report)
            if stage is not None and stage.state is StageState.ACTIVE
        )
        ended = self.ended(Reason.REEVALUATION_ERROR, f"{problem}; the pointer stays")
        return replace(ended, afterwards=leftovers)
