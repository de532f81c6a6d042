"""Fixtures of the operator's tests: one cluster with controllers a session; a namespace, an operator, a node a test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import Cluster, Mode
from tests.integration.operator_run import OperatorRun, Space
from tests.integration.puppet import Puppet
from tests.integration.stories import all_well

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def controllers() -> Iterator[Cluster]:
    """A cluster with Kubernetes' controllers and scheduler."""
    name = os.environ.get("PLIMSOLL_OPERATOR_CLUSTER") or f"op-{os.getpid()}"
    with Cluster.up(name, mode=Mode.FAKE_NODES) as cluster:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))
        yield cluster


@pytest.fixture(scope="session")
def session_puppet(controllers: Cluster) -> Iterator[Puppet]:
    """The node; its script is set by each test."""
    with Puppet(controllers, all_well) as puppet:
        yield puppet


@pytest.fixture
def puppet(session_puppet: Puppet) -> Puppet:
    """The node with the script that makes all go well, until the test sets another."""
    session_puppet.script = all_well
    session_puppet.acted.clear()
    return session_puppet


@pytest.fixture
def space(controllers: Cluster) -> Space:
    """A namespace of the test's own."""
    return Space.make(controllers)


@pytest.fixture
def operator(space: Space, tmp_path: Path) -> Iterator[OperatorRun]:
    """The operator, running."""
    run = OperatorRun(space.cluster.kubeconfig, space.name, tmp_path / "operator.log")
    with run:
        yield run
    print(run.log.read_text()[-20000:])
