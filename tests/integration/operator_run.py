"""The operator as a real program beside the test, and the objects that it works on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes import client, config
from tests.cluster import Cluster
from tests.integration.puppet import free_port, wait_for

from plimsoll_api import GROUP, VERSION
from plimsoll_api.crd import DEFINITIONS

COMPILED = Path(tempfile.gettempdir()) / "plimsoll-tests-pycache"
PLURALS = {definition.kind: definition.plural for definition in DEFINITIONS}


@dataclass
class OperatorRun:
    """`python -m plimsoll_operator` for one namespace."""

    kubeconfig: Path
    namespace: str
    log: Path
    port: int = field(default_factory=free_port)
    arguments: tuple[str, ...] = ()

    def start(self) -> OperatorRun:
        """Start the program; it may still wait for its lease afterwards."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KUBERNETES_")}
        # Most of a start is the client library's thousand modules: compiled once, a start takes a second.
        environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(COMPILED)}
        self._output = self.log.open("ab")
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "plimsoll_operator", "--namespaces", self.namespace,
                "--lease-namespace", self.namespace, "--identity", "operator-under-test",
                "--metrics-port", str(self.port), "--health-port", str(self.port),
                "--job-image", "puppet/job:1", "--log-format", "text", *self.arguments,
            ],
            env={**environment, "KUBECONFIG": str(self.kubeconfig)},
            stdout=self._output,
            stderr=self._output,
        )  # fmt: skip
        return self

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self._output.close()

    def get(self, path: str) -> str:
        """Return what it answers over HTTP."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def __enter__(self) -> OperatorRun:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass
class Space:
    """A namespace of the test's own and what lies in it."""

    cluster: Cluster
    name: str

    @classmethod
    def make(cls, cluster: Cluster) -> Space:
        """Make a namespace; it enforces the restricted pod security standard."""
        space = cls(cluster, f"op-{uuid.uuid4().hex[:8]}")
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        space.core.create_namespace({"metadata": {"name": space.name, "labels": labels}})
        # Without its account a namespace refuses pods.
        wait_for(lambda: space.core.list_namespaced_service_account(space.name).items)
        return space

    def __post_init__(self) -> None:
        connection = config.new_client_from_config(str(self.cluster.kubeconfig))
        self.custom = client.CustomObjectsApi(connection)
        self.core = client.CoreV1Api(connection)
        self.batch = client.BatchV1Api(connection)

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Create an object of ours."""
        created: dict[str, Any] = self.custom.create_namespaced_custom_object(
            GROUP, VERSION, self.name, PLURALS[manifest["kind"]], manifest, field_validation="Strict"
        )
        return created

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return an object of ours, if it exists."""
        try:
            found: dict[str, Any] = self.custom.get_namespaced_custom_object(
                GROUP, VERSION, self.name, PLURALS[kind], name
            )
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise
        return found

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Return all objects of one of our kinds, by name."""
        found = self.custom.list_namespaced_custom_object(GROUP, VERSION, self.name, PLURALS[kind])["items"]
        return sorted(found, key=lambda item: str(item["metadata"]["name"]))

    def change(self, kind: str, name: str, **spec: Any) -> None:
        """Merge into an object's spec."""
        self.custom.patch_namespaced_custom_object(GROUP, VERSION, self.name, PLURALS[kind], name, {"spec": spec})

    def annotate(self, kind: str, name: str, key: str, value: str) -> None:
        """Set an annotation."""
        body = {"metadata": {"annotations": {key: value}}}
        self.custom.patch_namespaced_custom_object(GROUP, VERSION, self.name, PLURALS[kind], name, body)

    def status(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object's status; empty when there is none."""
        return (self.get(kind, name) or {}).get("status") or {}

    def conditions(self, kind: str, name: str) -> dict[str, tuple[str, str]]:
        """Return status and reason by condition type."""
        told = self.status(kind, name).get("conditions") or []
        return {entry["type"]: (entry["status"], entry["reason"]) for entry in told}

    def wait_phase(self, job: str, *phases: str, seconds: float = 40) -> dict[str, Any]:
        """Return the job's status once it is in one of these phases."""
        try:
            wait_for(lambda: self.status("CompressionJob", job).get("phase") in phases, seconds)
        except AssertionError:
            status = json.dumps(self.status("CompressionJob", job), indent=1)
            claim = f"{job} did not become {' or '.join(phases)} within {seconds} s: {status}"
            raise AssertionError(claim) from None
        return self.status("CompressionJob", job)

    def config_map(self, name: str) -> dict[str, str] | None:
        """Return a ConfigMap's data, if it exists."""
        try:
            return dict(self.core.read_namespaced_config_map(name, self.name).data or {})
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise

    def events(self, name: str) -> list[tuple[str, str]]:
        """Return reason and message of the Events about an object of ours."""
        found = self.core.list_namespaced_event(self.name, field_selector=f"involvedObject.name={name}").items
        return [(event.reason, event.message) for event in found if event.reporting_component == "plimsoll-operator"]
