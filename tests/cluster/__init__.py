"""A real Kubernetes for tests and the demo, on this machine: see README.md beside this file."""

from tests.cluster.binaries import tool
from tests.cluster.errors import ClusterError
from tests.cluster.handle import Cluster
from tests.cluster.settings import Mode

__all__ = ["Cluster", "ClusterError", "Mode", "tool"]
