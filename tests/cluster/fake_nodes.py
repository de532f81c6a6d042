"""Nodes that are not there: kwok keeps them alive and pretends to run their pods."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tests.cluster import processes
from tests.cluster.api_client import ApiClient
from tests.cluster.binaries import tool
from tests.cluster.commands import run
from tests.cluster.control_plane import answers
from tests.cluster.progress import say, wait_until
from tests.cluster.settings import Instance

COUNT = 10
_PORT = 10250
_DEFAULT_STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
_ANNOTATION = "kwok.x-k8s.io/node"


def start(instance: Instance, configs: Iterable[Path]) -> None:
    """Start kwok with its default stages and those of `configs`, and wait until the nodes are ready.

    A document of `configs` replaces the default one of the same kind and name (`pod-complete`, for one). kwok is
    started again when the configuration has changed.
    """
    config = instance.runtime / "kwok.yaml"
    text = yaml.safe_dump_all(_merged(configs))
    if processes.running(instance, "kwok") and config.read_text() != text:
        processes.stop(instance, ["kwok"], polite_seconds=3)
    config.write_text(text)
    processes.start(
        instance, "kwok", tool("kwok"), "--config", config, "-v", "WARN",
        "--kubeconfig", instance.kubeconfig, "--node-lease-duration-seconds", "40", "--cidr", "10.245.0.0/16",
        "--manage-nodes-with-annotation-selector", f"{_ANNOTATION}=fake",
        # kwok also answers for the nodes' kubelets, so the API server finds the logs of their pods there.
        "--node-ip", instance.node_address, "--node-port", str(_PORT), "--server-address", f"0.0.0.0:{_PORT}",
        "--tls-cert-file", instance.keys / "kubelet.crt", "--tls-private-key-file", instance.keys / "kubelet.key",
    )  # fmt: skip
    url = f"https://{instance.node_address}:{_PORT}/healthz"
    processes.await_ready(instance, "kwok", partial(answers, url), seconds=60)
    environment = {**os.environ, "KUBECONFIG": str(instance.kubeconfig)}
    nodes = "\n---\n".join(json.dumps(_node(number)) for number in range(COUNT)).encode()
    run(tool("kubectl"), "apply", "--server-side", "-f", "-", stdin=nodes, environment=environment)
    client = ApiClient(instance.kubeconfig)
    wait_until(partial(_all_ready, client), f"{COUNT} fake nodes are ready", seconds=60)
    say(f"{COUNT} fake nodes ready")


def _merged(configs: Iterable[Path]) -> list[dict[str, Any]]:
    stages = tool("kwok").parent / "stage"
    folders = [stages / folder for folder in _DEFAULT_STAGES]
    defaults = [
        file for folder in folders for file in sorted(folder.glob("*.yaml")) if "kustomization" not in file.name
    ]
    documents: dict[tuple[str, str], dict[str, Any]] = {}
    for file in [*defaults, *configs]:
        for document in yaml.safe_load_all(file.read_text()):
            if document:
                documents[document["kind"], document["metadata"]["name"]] = document
    return list(documents.values())


def _node(number: int) -> dict[str, Any]:
    name = f"fake-{number}"
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    metadata = {"name": name, "annotations": {_ANNOTATION: "fake"}, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata}


def _all_ready(client: ApiClient) -> bool:
    nodes = (client.get("/api/v1/nodes") or {}).get("items", [])
    conditions = [entry for node in nodes for entry in node.get("status", {}).get("conditions", [])]
    ready = [entry for entry in conditions if entry["type"] == "Ready" and entry["status"] == "True"]
    return len(ready) >= COUNT
