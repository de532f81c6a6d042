"""An amount taken in several turns, with training between them: what is left learns what it lost, and is ranked anew.

Each iteration takes the same share of what is left, as in Frankle and Carbin 2019 (arXiv 1803.03635) and Renda et al.
2020 (arXiv 2003.02389), so that all together take the amount.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from plimsoll_api.artifact import Leftover
from plimsoll_api.spec import Distill, Prune, Recovery
from plimsoll_job.checkpoints import Checkpoint, Checkpoints
from plimsoll_job.errors import TransientError, UserError
from plimsoll_job.techniques import distill
from plimsoll_job.techniques.prune.coupling import cut
from plimsoll_job.techniques.prune.fitting import NotCutError
from plimsoll_job.techniques.shape import Applied, Bench, Candidate, Cut

#: Share of an iteration's progress that is its ranking and cutting, the rest its recovery.
CUTTING_SHARE = 0.2
#: What of a recovery's record is told of each iteration.
TOLD = ("device", "processes", "precision", "samples", "optimizer", "epochs", "loss")


@dataclass(frozen=True)
class Goal:
    """What is to be gone after an iteration, what after the last, and what was gone before: shares of the step's start.

    Without iterations all is to be gone after the one there is.
    """

    planned: float
    final: float
    taken: float = 0.0

    @property
    def amount(self) -> float:
        """The share of what the model has now that is to go now."""
        return self._of_the_rest(self.planned)

    @property
    def most(self) -> float:
        """The share of what the model has now that is to go until the last iteration."""
        return self._of_the_rest(self.final)

    def taken_with(self, share: float) -> float:
        """Return the share that is gone after a share of what the model has now went."""
        return 1 - (1 - self.taken) * (1 - share)

    def _of_the_rest(self, share: float) -> float:
        return max(0.0, 1 - (1 - share) / (1 - self.taken))


@dataclass(frozen=True)
class Turn:
    """What one iteration made: the candidate, the same where nothing went, and the share that is gone by now."""

    candidate: Candidate
    taken: float
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left: tuple[Leftover, ...] = ()
    reached: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Course:
    """Iterations that are finished: the candidate after them, the share that all took, what each tells of itself.

    What is left is what the last of them could not change, what was reached what any of them could.
    """

    candidate: Candidate
    taken: float = 0.0
    records: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    left: tuple[Leftover, ...] = ()
    reached: frozenset[str] = frozenset()


def planned_share(amount: float, iteration: int, iterations: int) -> float:
    """Return the share that is to be gone after this iteration, the first being 1."""
    left: float = (1 - amount) ** (iteration / iterations)
    return 1 - left


def take_turns(
    settings: Prune, candidate: Candidate, bench: Bench, take: Callable[[Candidate, Goal, Bench], Turn]
) -> Course:
    """Return the course of all iterations; one that was stopped goes on from the last iteration, or epoch, it kept."""
    # A pattern has no amount, and takes all that it takes at once.
    amount, iterations = settings.amount.value if settings.amount else 0.0, settings.iterations
    kept = bench.checkpoints and _iterations_of(bench.checkpoints)
    course = (_gone_on_with(candidate, bench, kept) if kept else None) or Course(candidate)
    for number in range(len(course.records) + 1, iterations + 1):
        within = replace(bench, reporter=bench.reporter.part((number - 1) / iterations, number / iterations))
        recovers = settings.recovery is not None and number < iterations
        cutting = replace(within, reporter=within.reporter.part(0, CUTTING_SHARE if recovers else 1))
        goal = Goal(planned_share(amount, number, iterations), amount, course.taken)
        turn = take(course.candidate, goal, cutting)
        record = {"amount": round(goal.planned, 6), "share": round(turn.taken, 6), **turn.details}
        after, notes = turn.candidate, turn.notes
        if number < iterations and after.module is not course.candidate.module:
            course.candidate.let_go()
        if recovers and after is not course.candidate:
            if kept and bench.ranks.world > 1:
                so_far = Course(after, turn.taken, (*course.records, record))
                _cut_of(kept).save(_checkpoint(so_far, skip=len(candidate.changes)))
                bench.announce()
            recovered = _recover(cast(Recovery, settings.recovery), after, within, number)
            after, notes = recovered.candidate, (*notes, *recovered.notes)
            record["recovery"] = {name: recovered.details[name] for name in TOLD}
        notes = tuple(dict.fromkeys((*course.notes, *notes)))
        course = Course(after, turn.taken, (*course.records, record), notes, turn.left, course.reached | turn.reached)
        if kept and recovers:
            kept.save(_checkpoint(course, skip=len(candidate.changes)))
            # Else the recoveries of all iterations would lie there side by side.
            shutil.rmtree(_of_recovery(kept.directory.parent, number), ignore_errors=True)
    return course


def recover_beside(settings: Prune, candidate: Candidate, bench: Bench) -> Applied:
    """Train, beside the first process under torchrun, what it has cut of the step's candidate and left in the store."""
    assert bench.checkpoints is not None  # noqa: S101 — where processes train together, they share a store
    try:
        course = _resume(candidate, bench, _cut_of(_iterations_of(bench.checkpoints)))
    except NotCutError as error:
        raise UserError(
            f"{bench.spec_field}.recovery: another process cannot cut the model as the first did: its code computes "
            f"otherwise there: {error}; train in one process",
            reason="NotPrunable",
        ) from error
    if course is None:
        raise TransientError(f"{bench.spec_field}: the cut cannot be read from the store", reason="StoreUnreadable")
    return _recover(cast(Recovery, settings.recovery), course.candidate, bench, len(course.records))


def _iterations_of(step: Checkpoints) -> Checkpoints:
    """Return where the step keeps its finished iterations."""
    return Checkpoints(step.directory / "iterations")


def _cut_of(iterations: Checkpoints) -> Checkpoints:
    """Return where an iteration leaves what it has cut for the other processes, before all of them train it."""
    return Checkpoints(iterations.directory.parent / "cut")


def _of_recovery(directory: Path, number: int) -> Path:
    """Return where the recovery of this iteration keeps how far it is."""
    return directory / f"recovery-{number:02d}"


def _recover(settings: Recovery, candidate: Candidate, bench: Bench, number: int) -> Applied:
    """Return the candidate trained to answer as the model given to the job does; zeros of sparse weights stay zero."""
    checkpoints = bench.checkpoints and replace(
        bench.checkpoints, directory=_of_recovery(bench.checkpoints.directory, number)
    )
    recovery = replace(
        bench,
        seed=bench.seed * 100 + number,
        spec_field=f"{bench.spec_field}.recovery",
        reporter=bench.reporter.part(CUTTING_SHARE, 1),
        checkpoints=checkpoints,
    )
    return distill.apply(Distill.model_validate(dict(settings)), candidate, recovery)


def _checkpoint(course: Course, skip: int) -> Checkpoint:
    """Return the course without the changes that were there before the step."""
    facts = {
        "cuts": [asdict(cast(Cut, one)) for one in course.candidate.changes[skip:]],
        "sparse": sorted(course.candidate.sparse),
        "taken": course.taken,
        "records": list(course.records),
        "notes": list(course.notes),
        "left": [one.to_wire() for one in course.left],
        "reached": sorted(course.reached),
    }
    return Checkpoint(len(course.records), course.candidate.module.state_dict(), facts)


def _gone_on_with(candidate: Candidate, bench: Bench, kept: Checkpoints) -> Course | None:
    """Return the course that was kept; None where the model cannot be cut so again, and all turns are taken anew."""
    try:
        return _resume(candidate, bench, kept)
    except NotCutError:
        return None


def _resume(candidate: Candidate, bench: Bench, kept: Checkpoints) -> Course | None:
    """Return the course up to the newest iteration that was kept, None where there is none."""
    newest = kept.newest()
    if newest is None:
        return None
    cuts = _cuts(newest.facts["cuts"])
    module = candidate.module
    if cuts:
        module = cut(module, bench.signature, cuts)
        candidate.let_go()
    module.load_state_dict(newest.tensors)
    return Course(
        replace(
            candidate,
            module=module,
            changes=(*candidate.changes, *cuts),
            sparse=frozenset(newest.facts["sparse"]),
        ),
        newest.facts["taken"],
        tuple(newest.facts["records"]),
        tuple(newest.facts["notes"]),
        tuple(Leftover.model_validate(one) for one in newest.facts["left"]),
        frozenset(newest.facts["reached"]),
    )


def _cuts(facts: Sequence[Mapping[str, Any]]) -> tuple[Cut, ...]:
    return tuple(Cut(one["layer"], tuple(one["channels"]), one["turn"]) for one in facts)
