"""One cluster and one operator for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cluster import Cluster
from tests.e2e.way import Way


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real node, in an instance of its own: a demo that runs beside it is not touched."""
    with Cluster.up("e2e") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def way(cluster: Cluster) -> Way:
    """The way, with what its steps tell in the test's output."""
    return Way(cluster, print)
