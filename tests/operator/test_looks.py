"""Close looks at running jobs are rationed, whatever their number."""

from __future__ import annotations

from plimsoll_operator.job.observe import LOOKS_PER_SECOND, Looks
from plimsoll_operator.job.snapshot import LOOK_SECONDS


def test_a_job_is_not_looked_at_closely_when_it_is_first_seen() -> None:
    looks = Looks()
    assert not looks.due("a")
    looks.last["a"] -= LOOK_SECONDS
    assert looks.due("a")
    assert not looks.due("a")


def test_of_two_that_are_due_at_once_one_waits() -> None:
    looks = Looks()
    for uid in ("a", "b"):
        looks.due(uid)
        looks.last[uid] -= LOOK_SECONDS
    assert [looks.due("a"), looks.due("b")] == [True, False]


def test_turns_are_further_apart_the_more_jobs_run() -> None:
    looks = Looks()
    looks.due("a")
    assert looks.interval_seconds == LOOK_SECONDS
    for number in range(1000):
        looks.due(f"job-{number}")
    assert looks.interval_seconds == 1001 / LOOKS_PER_SECOND
    for number in range(1000):
        looks.forget(f"job-{number}")
    assert looks.interval_seconds == LOOK_SECONDS
