"""The operator is killed and started again: nothing is done twice, nothing is lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.integration.fault_proxy import CarryOn, Dropped, FaultProxy, is_write
from tests.integration.operator_run import OperatorRun, Space
from tests.integration.puppet import Act, Puppet, wait_for
from tests.integration.stories import (
    all_well,
    compression_job,
    good_report,
    measured,
    model_release,
    request_of,
    stage_of,
)

from plimsoll_api import names

pytestmark = pytest.mark.apiserver

#: What differs though the same is meant: times, and the versions that a change is based on.
VARYING = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\"resourceVersion\":\"\d+\"")


#: A start takes seconds, and one run has up to twenty.
PATIENCE_SECONDS = 600


class Killer:
    """Kills the operator after writes that it is told of: the API server has them, the operator does not know."""

    def __init__(self, run: OperatorRun, fatal: Callable[[str], bool], *, whole: bool = False) -> None:
        self.run = run
        self.fatal = fatal
        self.whole = whole
        """Whether a write is told apart by its body too."""
        self.writes: list[str] = []
        self.kills = 0

    async def fault(self, request: web.Request, carry_on: CarryOn) -> web.StreamResponse:
        """Pass the request on, and kill where it is fatal."""
        if not is_write(request):
            return await carry_on()
        body = VARYING.sub("", (await request.read()).decode())
        said = f"{request.method} {request.path}"
        self.writes.append(said)
        if not self.fatal(f"{said} {body}" if self.whole else said):
            return await carry_on()
        await carry_on()
        self.kills += 1
        self.run.process.kill()
        raise Dropped


@pytest.fixture
def proxy(space: Space, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(space.cluster, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def proxied(space: Space, puppet: Puppet, proxy: FaultProxy, tmp_path: Path) -> Iterator[OperatorRun]:
    """The operator, not yet started, with the proxy between it and the API server."""
    puppet.script = shifted
    run = OperatorRun(proxy.kubeconfig, space.name, tmp_path / "operator.log")
    yield run
    print(run.log.read_text()[-20000:])


def shifted(pod: dict[str, Any]) -> Act:
    """All goes well, but that the re-evaluation finds the candidate worse."""
    if stage_of(pod) == "reevaluate":
        return measured(good_report(request_of(pod), lost=400))
    return all_well(pod)


def kept_alive(run: OperatorRun, done: Callable[[], Any]) -> Callable[[], Any]:
    """Return the question `done`, asked while the operator is started again whenever it is dead."""

    def ask() -> Any:
        if run.process.poll() is not None:
            run.start()
        return done()

    return ask


def result(space: Space, job: str, release: str) -> dict[str, Any]:
    """Return what is left of the job and the release, without what differs from run to run."""
    status = space.status("CompressionJob", job)
    pointer = space.status("ModelRelease", release)
    return {
        "job": {key: status.get(key) for key in ("phase", "verdict", "planDigest", "artifact", "revision", "checks")},
        "conditions": space.conditions("CompressionJob", job),
        "release": {
            key: pointer.get(key) for key in ("currentRevision", "lastGoodRevision", "rollbacks", "currentDigest")
        },
        "rejected": [item["digest"] for item in pointer.get("rejected", [])],
        "reevaluation": (pointer.get("reevaluation") or {}).get("reason"),
        "pointer": space.config_map(names.model_config_name(release)),
        "revisions": [
            (item["spec"]["revision"], item["spec"]["artifact"]["digest"], item["spec"]["source"]["jobName"])
            for item in space.all("ModelRevision")
        ],
        "batchJobs": sorted(item.metadata.name for item in space.batch.list_namespaced_job(space.name).items),
        "pods": len(space.core.list_namespaced_pod(space.name).items),
        "events": sorted(reason for name in (job, release) for reason, _ in space.events(name)),
    }


def run_through(space: Space, run: OperatorRun) -> dict[str, Any]:
    """Take one job through to a rollback, starting the operator again whenever it is dead; return what is left."""
    space.create(model_release("digits"))
    space.create(compression_job("one", releaseRef={"name": "digits"}))

    def serves(number: str) -> bool:
        return (space.config_map("digits-model") or {}).get("revision") == number

    def succeeded() -> bool:
        return space.status("CompressionJob", "one").get("phase") == "Succeeded"

    def rejected() -> bool:
        return space.conditions("ModelRevision", "digits-2").get("Good", ("",))[0] == "False"

    wait_for(kept_alive(run, lambda: serves("2")), PATIENCE_SECONDS)
    wait_for(
        kept_alive(run, lambda: space.status("CompressionJob", "one").get("phase") == "Succeeded"), PATIENCE_SECONDS
    )
    space.annotate("ModelRelease", "digits", names.ANNOTATION_REEVALUATE, "shifted")
    wait_for(kept_alive(run, lambda: serves("1")), PATIENCE_SECONDS)
    wait_for(kept_alive(run, rejected), PATIENCE_SECONDS)
    return result(space, "one", "digits")


@pytest.fixture(scope="session")
def golden(controllers: Any, session_puppet: Puppet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is left after a run in which nothing goes wrong."""
    space = Space.make(controllers)
    session_puppet.script = shifted
    with OperatorRun(controllers.kubeconfig, space.name, tmp_path_factory.mktemp("golden") / "operator.log") as run:
        return run_through(space, run)


@pytest.mark.timeout(1800)
def test_killed_after_every_single_write(
    space: Space, proxied: OperatorRun, proxy: FaultProxy, golden: dict[str, Any]
) -> None:
    """After one write is before the next: no moment of the way is left out."""
    run = proxied
    seen: set[str] = set()

    def first_time(said: str) -> bool:
        fresh = said not in seen
        seen.add(said)
        return fresh

    killer = Killer(run, first_time, whole=True)
    proxy.fault = killer.fault
    with run:
        left = run_through(space, run)
    assert killer.kills >= 12
    assert left == golden


MOMENTS = {
    "the plan is frozen": ("/configmaps", 1),
    "the compress batch Job is made": ("/jobs", 1),
    "evaluation is told": ("/compressionjobs/one/status", 2),
    "the candidate is a revision": ("/modelrevisions", 2),
    "the pointer goes back": ("/modelreleases/digits/status", 3),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_once_when(
    space: Space, proxied: OperatorRun, proxy: FaultProxy, golden: dict[str, Any], moment: str
) -> None:
    run = proxied
    path, count = MOMENTS[moment]
    killer = Killer(run, lambda said: said.endswith(path) and sum(w.endswith(path) for w in killer.writes) == count)
    proxy.fault = killer.fault
    with run:
        left = run_through(space, run)
    assert killer.kills == 1
    assert left == golden
