"""Close looks at running jobs are rationed, whatever their number."""

from __future__ import annotations

from plimsoll_operator.job.observe import LOOKS_PER_SECOND, Looks
from plimsoll_operator.job.snapshot import LOOK_SECONDS


def test_a_stage_is_not_looked_at_closely_before_it_has_run_for_a_while() -> None:
    looks = Looks()
    assert not looks.due("a", 0)
    looks.last["a"] -= LOOK_SECONDS
    assert looks.due("a", LOOK_SECONDS)
    assert not looks.due("a", LOOK_SECONDS)


def test_a_stage_that_has_run_for_a_while_is_looked_at_when_it_is_first_seen() -> None:
    assert Looks().due("a", LOOK_SECONDS)


def test_of_two_that_are_due_at_once_one_waits() -> None:
    looks = Looks()
    for uid in ("a", "b"):
        looks.due(uid, 0)
        looks.last[uid] -= LOOK_SECONDS
    assert [looks.due(uid, LOOK_SECONDS) for uid in ("a", "b")] == [True, False]


def test_turns_are_further_apart_the_more_jobs_run() -> None:
    looks = Looks()
    looks.due("a", 0)
    assert looks.interval_seconds == LOOK_SECONDS
    for number in range(1000):
        looks.due(f"job-{number}", 0)
    assert looks.interval_seconds == 1001 / LOOKS_PER_SECOND
    for number in range(1000):
        looks.forget(f"job-{number}")
    assert looks.interval_seconds == LOOK_SECONDS
