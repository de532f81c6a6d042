"""One cluster and one operator for all end-to-end tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.cluster import Cluster
from tests.e2e.claims import Claim
from tests.e2e.way import Way


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real node; one that is up already is used and left up."""
    with Cluster.up() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def way(cluster: Cluster) -> Iterator[Way]:
    """The way in a namespace of this run, with what its steps tell in the test's output."""
    way = Way(cluster, print, namespace=f"e2e-{secrets.token_hex(3)}")
    yield way
    cluster.kubectl("delete", "namespace", way.kube.namespace, "--wait=false")


@pytest.fixture(scope="session")
def session_began(way: Way) -> datetime:
    """When the first test asked for the way; nothing of this run is older."""
    return datetime.now(UTC)


@pytest.fixture(scope="session")
def installed(way: Way, session_began: datetime) -> list[Claim]:
    """The operator runs; the claims of it."""
    return way.install()


@pytest.fixture(scope="session")
def prepared(way: Way, installed: list[Claim]) -> list[Claim]:
    """Model, data, release and server are there; the claims of it."""
    return way.prepare()
