"""The watch, the audit and the lease against an API server of a few lines."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from plimsoll_operator import leader
from plimsoll_operator.audit import PATIENCE, Audit, Watched
from plimsoll_operator.cluster import watch as watching
from plimsoll_operator.cluster.errors import (
    AlreadyExistsError,
    ConflictError,
    GoneError,
    NotFoundError,
    UnavailableError,
)
from plimsoll_operator.cluster.resources import BATCH_JOBS, PODS
from plimsoll_operator.cluster.watch import Watch


def item(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}}


class Server:
    """Answers lists with `items` and watches with the next of `scripts`."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.scripts: list[list[Any]] = []
        self.watched_from: list[str] = []
        self.lists = 0
        self.lease: dict[str, Any] | None = None
        self.versions = itertools.count(100)

    async def pages(self, *_: Any, **__: Any) -> AsyncIterator[dict[str, Any]]:
        self.lists += 1
        half = len(self.items) // 2
        for part in (self.items[:half], self.items[half:]):
            yield {"metadata": {"resourceVersion": "50"}, "items": part}

    async def watch(self, _: Any, __: Any, *, query: dict[str, str], **___: Any) -> AsyncIterator[dict[str, Any]]:
        self.watched_from.append(query["resourceVersion"])
        if not self.scripts:
            await asyncio.sleep(60)
        for step in self.scripts.pop(0):
            if isinstance(step, Exception):
                raise step
            yield step

    async def get(self, *_: Any) -> dict[str, Any]:
        if self.lease is None:
            raise NotFoundError("no lease")
        return self.lease

    async def create(self, _: Any, __: Any, body: dict[str, Any]) -> None:
        if self.lease is not None:
            raise AlreadyExistsError("there is one")
        self.lease = {**body, "metadata": {"resourceVersion": str(next(self.versions))}}

    async def patch(self, _: Any, __: Any, ___: Any, body: dict[str, Any]) -> None:
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ConflictError("changed")
        spec = self.lease["spec"] | body["spec"]
        self.lease = {"metadata": {"resourceVersion": str(next(self.versions))}, "spec": spec}


async def told(server: Server, seconds: float = 0.1, known: tuple[tuple[str, str], ...] = ()) -> list[str]:
    """Return what the watch tells within the time."""
    heard: list[str] = []
    watch = Watch(
        server,  # type: ignore[arg-type]
        PODS,
        None,
        "a=b",
        changed=lambda obj: heard.append("+" + obj["metadata"]["name"]),
        removed=lambda _, name, __: heard.append("-" + name),
        known=lambda: known,
    )
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(seconds)
    task.cancel()
    return heard


async def test_the_watch_lists_then_follows_and_tells_what_is_gone() -> None:
    server = Server()
    server.items = [item("a", 1), item("b", 2)]
    server.scripts = [[{"type": "ADDED", "object": item("c", 51)}, {"type": "DELETED", "object": item("a", 52)}]]
    assert await told(server, known=(("ns", "old"),)) == ["+a", "+b", "-old", "+c", "-a"]
    assert server.watched_from == ["50", "52"]


async def test_a_watch_that_is_too_old_lists_again() -> None:
    server = Server()
    server.items = [item("a", 1)]
    server.scripts = [[GoneError("too old")]]
    assert await told(server) == ["+a", "+a"]


async def test_a_broken_watch_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LONGEST_PAUSE_SECONDS", 0.01)
    server = Server()
    server.scripts = [[{"type": "BOOKMARK", "object": item("x", 77)}, UnavailableError("silence")]]
    assert await told(server) == []
    assert (server.watched_from, server.lists) == (["50", "77"], 1)


class Audited:
    """An audit of one kind, of which the watch told `seen` in `heard` events."""

    def __init__(self) -> None:
        self.server = Server()
        self.seen = {"a": 1, "b": 2}
        self.heard = 2
        told = Watched(BATCH_JOBS, "", lambda _, name: self.seen.get(name), lambda: self.heard)
        self.audit = Audit(self.server, [None], [told], interval_seconds=20)  # type: ignore[arg-type]
        self.server.items = [item("a", 1), item("b", 2)]


async def test_the_audit_finds_a_watch_that_is_silent_though_something_changed() -> None:
    watch = Audited()
    assert await watch.audit.look() == []
    watch.server.items = [item("a", 1), item("b", 8)]
    assert await watch.audit.look() == []
    assert await watch.audit.look() == ["Job/ns/b"]


async def test_the_audit_lets_a_watch_catch_up_but_not_for_ever() -> None:
    watch = Audited()
    watch.server.items = [item("a", 7), item("b", 8)]
    for _ in range(PATIENCE):
        assert await watch.audit.look() == []
        watch.heard += 1
    assert await watch.audit.look() == ["Job/ns/a", "Job/ns/b"]
    watch.seen = {"a": 7, "b": 8}
    assert await watch.audit.look() == []


def lease(server: Server, identity: str) -> leader.Lease:
    return leader.Lease(server, "ns", "lease", identity, lambda: datetime.now(UTC))  # type: ignore[arg-type]


async def test_one_operator_leads_and_the_next_takes_over_what_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "RETRY_SECONDS", 0.01)
    server = Server()
    first, second = lease(server, "first"), lease(server, "second")
    await first.acquire()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(second.acquire(), 0.1)
    await first.release()
    await asyncio.wait_for(second.acquire(), 1)
    assert server.lease is not None
    assert server.lease["spec"]["holderIdentity"] == "second"


async def test_a_dead_holder_is_succeeded_after_its_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "RETRY_SECONDS", 0.01)
    server = Server()
    await lease(server, "dead").acquire()
    assert server.lease is not None
    server.lease["spec"]["leaseDurationSeconds"] = 1
    begun = asyncio.get_running_loop().time()
    await asyncio.wait_for(lease(server, "next").acquire(), 3)
    assert asyncio.get_running_loop().time() - begun >= 1


async def test_a_holder_that_was_overtaken_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "RENEW_SECONDS", 0.01)
    server = Server()
    held = lease(server, "first")
    await held.acquire()
    assert server.lease is not None
    server.lease["spec"]["holderIdentity"] = "thief"
    await asyncio.wait_for(held.hold(), 1)
