"""The queue, the mirror and what watches tell."""

from __future__ import annotations

import asyncio
from typing import Any

from plimsoll_operator.cluster.resources import BATCH_JOBS, COMPRESSION_JOBS, MODEL_RELEASES, MODEL_REVISIONS
from plimsoll_operator.intake import Intake
from plimsoll_operator.mirror import Key, Mirror
from plimsoll_operator.queue import WorkQueue

A = Key("CompressionJob", "ns", "a", "1")
B = Key("CompressionJob", "ns", "b", "2")
RELEASE = Key("ModelRelease", "ns", "r", "3")


async def drained(queue: WorkQueue) -> list[Key]:
    keys = []
    while len(queue):
        keys.append(await queue.get())
    return keys


async def test_a_key_is_handed_out_once_however_often_it_is_added() -> None:
    queue = WorkQueue()
    for key in (A, B, A, A):
        queue.add(key)
    assert await drained(queue) == [A, B]


async def test_a_key_added_while_it_is_worked_on_comes_once_more_afterwards() -> None:
    queue = WorkQueue()
    queue.add(A)
    assert await queue.get() == A
    queue.add(A)
    queue.add(A)
    assert len(queue) == 0
    queue.done(A)
    assert await drained(queue) == [A]


async def test_urgent_kinds_go_first() -> None:
    queue = WorkQueue(urgent_kinds=frozenset({"ModelRelease"}))
    for key in (A, B, RELEASE):
        queue.add(key)
    assert await drained(queue) == [RELEASE, A, B]


async def test_a_delay_is_cut_short_by_an_event_and_by_an_earlier_wish_only() -> None:
    queue = WorkQueue()
    queue.add_after(A, 60)
    queue.add_after(A, 0.01)
    queue.add_after(A, 60)
    assert await asyncio.wait_for(queue.get(), 1) == A
    queue.done(A)
    queue.add_after(B, 60)
    queue.add(B)
    assert await drained(queue) == [B]


async def test_failures_back_off_and_a_success_forgets_them() -> None:
    queue = WorkQueue()

    async def fail() -> float:
        queue.add(A)
        assert await queue.get() == A
        return queue.failed(A)

    assert [await fail() for _ in range(3)] == [0.5, 1.0, 2.0]
    assert queue.failed(A, at_least_seconds=9) == 9
    queue.done(A)
    assert await fail() == 0.5


def job(name: str, version: int, uid: str = "u", **more: Any) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": str(version)}
    return {"kind": "CompressionJob", "metadata": metadata, "spec": {}, **more}


async def test_an_older_reading_never_replaces_a_newer_one() -> None:
    mirror = Mirror()
    assert mirror.put(COMPRESSION_JOBS, job("a", 5))
    assert not mirror.put(COMPRESSION_JOBS, job("a", 4))
    assert not mirror.put(COMPRESSION_JOBS, job("a", 5))
    assert mirror.put(COMPRESSION_JOBS, job("a", 3, uid="another"))


async def test_own_writes_do_not_wake_the_object_again() -> None:
    mirror, queue = Mirror(), WorkQueue()
    intake = Intake(mirror, queue)
    mirror.put(COMPRESSION_JOBS, job("a", 5))
    intake.own(COMPRESSION_JOBS, job("a", 5))
    assert len(queue) == 0
    intake.own(COMPRESSION_JOBS, job("a", 6))
    assert len(queue) == 1


async def test_children_wake_their_owner_and_revisions_their_release() -> None:
    mirror, queue = Mirror(), WorkQueue()
    intake = Intake(mirror, queue)
    mirror.put(COMPRESSION_JOBS, job("a", 1))
    mirror.put(MODEL_RELEASES, {**job("r", 1), "kind": "ModelRelease"})
    labels = {"plimsoll.dev/compression-job": "a", "plimsoll.dev/stage": "compress"}
    child = {
        "metadata": {"namespace": "ns", "name": "a-compress", "uid": "c", "resourceVersion": "2", "labels": labels}
    }
    intake.batch_job({**child, "spec": {}})
    intake.pod({**child, "status": {"phase": "Running"}})
    intake.own(MODEL_REVISIONS, job("r-1", 3, spec={"release": "r"}))
    assert [key.name for key in await drained(queue)] == ["a", "r"]


async def test_a_release_that_appears_wakes_the_jobs_that_wait_for_it() -> None:
    mirror, queue = Mirror(), WorkQueue()
    intake = Intake(mirror, queue)
    waiting: dict[str, Any] = {"spec": {"releaseRef": {"name": "r"}}, "status": {"phase": "Releasing"}}
    mirror.put(COMPRESSION_JOBS, job("waits", 1, **waiting))
    mirror.put(COMPRESSION_JOBS, job("done", 1, uid="v", **{**waiting, "status": {"phase": "Succeeded"}}))
    intake.own(MODEL_RELEASES, {**job("r", 2), "kind": "ModelRelease"})
    assert sorted(key.name for key in await drained(queue)) == ["r", "waits"]


async def test_a_revision_that_is_deleted_wakes_its_release_once() -> None:
    mirror, queue = Mirror(), WorkQueue()
    intake = Intake(mirror, queue)
    mirror.put(MODEL_RELEASES, {**job("r", 1), "kind": "ModelRelease"})
    revision = job("r-1", 3, spec={"release": "r"})
    mirror.put(MODEL_REVISIONS, revision)
    intake.event(MODEL_REVISIONS, "DELETED", revision)
    assert [key.name for key in await drained(queue)] == ["r"]
    intake.event(MODEL_REVISIONS, "DELETED", revision)
    assert not queue


async def test_a_deleted_job_does_not_take_its_successor_along() -> None:
    mirror, queue = Mirror(), WorkQueue()
    intake = Intake(mirror, queue)
    mirror.put(COMPRESSION_JOBS, job("a", 9, uid="new"))
    intake.own_gone(COMPRESSION_JOBS, "ns", "a", "old")
    assert mirror.get(COMPRESSION_JOBS, "ns", "a")
    intake.own_gone(COMPRESSION_JOBS, "ns", "a", None)
    assert not mirror.get(COMPRESSION_JOBS, "ns", "a")


async def test_whatever_a_watch_tells_is_heard() -> None:
    intake = Intake(Mirror(), WorkQueue())
    intake.own(COMPRESSION_JOBS, job("a", 1))
    intake.own_gone(COMPRESSION_JOBS, "ns", "a", "u")
    intake.batch_job(job("b", 1))
    intake.batch_job_gone("ns", "b", "u")
    assert intake.heard == {COMPRESSION_JOBS.kind: 2, BATCH_JOBS.kind: 2}


async def test_a_deleted_batch_job_does_not_take_its_successor_along() -> None:
    mirror = Mirror()
    new = {"metadata": {"namespace": "ns", "name": "j", "uid": "new", "resourceVersion": "9"}, "spec": {}}
    mirror.put_batch_job(new)
    assert mirror.remove_batch_job("ns", "j", "old") is None
    assert mirror.batch_job("ns", "j") is not None
