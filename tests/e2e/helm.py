"""Helm against the cluster of a test."""

from __future__ import annotations

import os

from tests.cluster import Cluster, tool
from tests.cluster.commands import run


def helm(cluster: Cluster, *arguments: str) -> str:
    """Run helm against the cluster and return what it prints."""
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    return run(tool("helm"), *arguments, environment=environment)


def image_values() -> list[str]:
    """Return the chart's values for other images than the chart's own, for a cluster that pulls them elsewhere."""
    values = []
    for key, variable in (("image", "PLIMSOLL_OPERATOR_IMAGE"), ("jobImage", "PLIMSOLL_JOB_IMAGE")):
        repository, _, tag = os.environ.get(variable, "").rpartition(":")
        if repository:
            values += ["--set", f"{key}.repository={repository}", "--set", f"{key}.tag={tag}"]
    return values
