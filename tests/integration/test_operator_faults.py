"""Everything that can go wrong on the way to the API server does, again and again; the work gets done all the same."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.integration.fault_proxy import CarryOn, Dropped, FaultProxy, is_write
from tests.integration.operator_run import OperatorRun, Space
from tests.integration.puppet import wait_for
from tests.integration.stories import compression_job, model_release
from tests.integration.test_operator_crash import kept_alive

pytestmark = pytest.mark.apiserver

SHARE = 0.25


@pytest.fixture
def proxy(space: Space, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(space.cluster, tmp_path) as proxy:
        yield proxy


async def refused(status: int) -> web.StreamResponse:
    body = {"kind": "Status", "status": "Failure", "message": "made up by the test", "code": status}
    return web.json_response(body, status=status)


@pytest.mark.usefixtures("puppet")
@pytest.mark.timeout(900)
def test_a_quarter_of_all_requests_fail_and_every_job_ends_once(
    space: Space, proxy: FaultProxy, tmp_path: Path
) -> None:
    chance = random.Random(7)  # noqa: S311 - the same faults each time

    async def fault(request: web.Request, carry_on: CarryOn) -> web.StreamResponse:
        if chance.random() > SHARE:
            return await carry_on()
        match chance.choice(["429", "500", "before", "after", "slow", "410"]):
            case "429":
                return await refused(429)
            case "500":
                return await refused(500)
            case "before":
                raise Dropped
            case "after":
                if is_write(request):
                    await carry_on()
                raise Dropped
            case "410" if "watch" in request.query:
                return await refused(410)
            case _:
                await asyncio.sleep(chance.random())
                return await carry_on()

    jobs = [f"job-{number}" for number in range(4)]
    run = OperatorRun(proxy.kubeconfig, space.name, tmp_path / "operator.log")
    proxy.fault = fault
    with run:
        space.create(model_release("digits"))
        for job in jobs:
            space.create(compression_job(job, releaseRef={"name": "digits"}))
        ended = lambda: [space.status("CompressionJob", job).get("phase") for job in jobs] == ["Succeeded"] * 4  # noqa: E731
        wait_for(kept_alive(run, ended), 400)
        wait_for(kept_alive(run, lambda: (space.config_map("digits-model") or {}).get("revision") == "5"), 200)
    revisions = space.all("ModelRevision")
    assert [item["spec"]["revision"] for item in revisions] == [1, 2, 3, 4, 5]
    assert sorted(item["spec"]["source"]["jobName"] for item in revisions[1:]) == jobs
    assert len(space.batch.list_namespaced_job(space.name).items) == 8
    assert all([reason for reason, _ in space.events(job)] == ["Released"] for job in jobs)


@pytest.mark.usefixtures("puppet")
@pytest.mark.timeout(600)
def test_a_watch_that_swallows_events_is_found_and_the_operator_starts_anew(
    space: Space, proxy: FaultProxy, tmp_path: Path
) -> None:
    watched = threading.Event()

    async def deaf(request: web.Request, carry_on: CarryOn) -> web.StreamResponse:
        if "watch" not in request.query or "compressionjobs" not in request.path:
            return await carry_on()
        silence = web.StreamResponse(headers={"Content-Type": "application/json"})
        await silence.prepare(request)
        watched.set()
        await asyncio.sleep(600)
        return silence

    log = tmp_path / "operator.log"
    run = OperatorRun(proxy.kubeconfig, space.name, log, arguments=("--audit-seconds", "3"))
    with run:
        proxy.fault = deaf
        assert watched.wait(120)
        space.create(compression_job("unheard"))
        wait_for(lambda: run.process.poll() is not None, 150, "the operator did not find its watch dead")
        assert run.process.returncode == 1
        proxy.fault = None
        wait_for(kept_alive(run, lambda: space.status("CompressionJob", "unheard").get("phase") == "Succeeded"), 120)
