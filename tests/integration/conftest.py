"""A real API server (etcd and kube-apiserver) with the CRDs installed, once a test session.

Nothing acts on its objects: there are no controllers. PLIMSOLL_CLUSTER names an instance to use and keep,
PLIMSOLL_KUBECONFIG a cluster of one's own.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client, config
from tests.cluster import Cluster, Mode
from tests.integration.operator_fixtures import controllers, operator, puppet, session_puppet, space

__all__ = ["controllers", "operator", "puppet", "session_puppet", "space"]

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def api_server() -> Iterator[Cluster]:
    """The cluster; `api_server.kubectl(...)` and `api_server.kubeconfig`."""
    name = os.environ.get("PLIMSOLL_CLUSTER") or f"it-{os.getpid()}"
    with Cluster.up(name, mode=Mode.API_ONLY) as cluster:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))
        yield cluster


@pytest.fixture(scope="session")
def api_client(api_server: Cluster) -> Iterator[client.ApiClient]:
    """A client of the official library, as cluster administrator."""
    with config.new_client_from_config(str(api_server.kubeconfig)) as connection:
        yield connection


@pytest.fixture
def namespace(api_client: client.ApiClient) -> str:
    """A namespace of the test's own; without controllers none can be deleted, so it stays."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    client.CoreV1Api(api_client).create_namespace({"metadata": {"name": name}})
    return name
