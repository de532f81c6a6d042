"""Create many jobs at once and see by one watch what becomes of them."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from bench.operator.workload import compression_job

from plimsoll_api import API_VERSION
from plimsoll_api.reasons import ConditionType

CONNECTIONS = 16
#: How often, once a second, an API server is asked again that says it is busy.
PATIENCE_SECONDS = 30
_ENDED = (ConditionType.COMPLETE, ConditionType.FAILED)


@dataclass
class Observed:
    """When each job was asked for and when it ended, in seconds since the epoch."""

    began: float = 0.0
    ended: dict[str, float] = field(default_factory=dict)
    phases: dict[str, str] = field(default_factory=dict)
    transitions: Counter[str] = field(default_factory=Counter)
    """How many changes of phase were seen, by the phase that was reached."""

    @property
    def seconds(self) -> float:
        """From the first request to the last end."""
        return max(self.ended.values(), default=self.began) - self.began


async def put_through(
    kubeconfig: Path, namespace: str, names: Sequence[str], *, limit_seconds: float, alive: Callable[[], bool]
) -> Observed:
    """Create the jobs in parallel and return what was seen when all have ended, when the time is over, or when the
    operator is no longer alive.
    """
    observed = Observed()
    path = f"/apis/{API_VERSION}/namespaces/{namespace}/compressionjobs"
    async with _session(kubeconfig) as session:
        version = await _served(session, path)
        watching = asyncio.create_task(_watch(session, path, version, observed, len(names)))
        try:
            async with asyncio.timeout(limit_seconds):
                observed.began = time.time()
                await _create(session, path, names)
                while alive() and not watching.done():
                    await asyncio.wait({watching}, timeout=1)
                if watching.done():
                    watching.result()
        except TimeoutError:
            pass  # what has not ended by now shows in the figures
        finally:
            watching.cancel()
    return observed


async def _served(session: aiohttp.ClientSession, path: str) -> str:
    """Return the version of the list once the kind is served: right after its definition the answer is 429."""
    for _ in range(PATIENCE_SECONDS):
        async with session.get(path, params={"limit": "1"}) as reply:
            if reply.status == 200:
                return str((await reply.json())["metadata"]["resourceVersion"])
        await asyncio.sleep(1)
    raise RuntimeError(f"{path} is not served")


async def _create(session: aiohttp.ClientSession, path: str, names: Sequence[str]) -> None:
    waiting = iter(names)

    async def create_next() -> None:
        for name in waiting:
            for attempt in range(PATIENCE_SECONDS):
                async with session.post(path, json=compression_job(name)) as reply:
                    if reply.status == 201:
                        break
                    if reply.status != 429 or attempt == PATIENCE_SECONDS - 1:
                        raise RuntimeError(f"the API server refused {name}: {(await reply.text())[:500]}")
                await asyncio.sleep(1)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(create_next())


async def _watch(session: aiohttp.ClientSession, path: str, version: str, observed: Observed, jobs: int) -> None:
    while len(observed.ended) < jobs:
        params = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        async with session.get(path, params=params) as reply:
            if reply.status != 200:
                await asyncio.sleep(1)
                continue
            rest = b""
            async for chunk in reply.content.iter_any():
                now = time.time()
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    version = _note(json.loads(line), now, observed)
                if len(observed.ended) >= jobs:
                    return


def _note(event: dict[str, Any], now: float, observed: Observed) -> str:
    if event["type"] == "ERROR":
        raise RuntimeError(f"the watch ended: {event['object'].get('message')}")
    metadata, status = event["object"]["metadata"], event["object"].get("status") or {}
    name = metadata.get("name")
    phase = status.get("phase")
    if phase and observed.phases.get(name) != phase:
        observed.phases[name] = phase
        observed.transitions[phase] += 1
    conditions = status.get("conditions") or []
    if name not in observed.ended and any(
        condition["type"] in _ENDED and condition["status"] == "True" for condition in conditions
    ):
        observed.ended[name] = now
    return str(metadata["resourceVersion"])


async def read_metrics(kubeconfig: Path) -> str:
    """Return the API server's metrics."""
    async with _session(kubeconfig) as session, session.get("/metrics") as reply:
        return await reply.text()


@asynccontextmanager
async def _session(kubeconfig: Path) -> AsyncIterator[aiohttp.ClientSession]:
    config = json.loads(kubeconfig.read_text())  # noqa: ASYNC240 - nothing else runs yet
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    connector = aiohttp.TCPConnector(limit=CONNECTIONS + 4, ssl=ssl.create_default_context(cadata=authority))
    async with aiohttp.ClientSession(
        cluster["server"],
        connector=connector,
        headers={"Authorization": f"Bearer {user['token']}"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600),
    ) as session:
        yield session
