"""A node whose pods do what the test says: Kubernetes' own controllers make the pods, the test plays their kubelet."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes import client, config
from tests.cluster import Cluster

NODE_LABEL = "plimsoll.test/node"
STAGE_LABEL = "plimsoll.dev/stage"


@dataclass(frozen=True)
class Act:
    """What a pod does: how it ends, or how it does not."""

    exit_code: int | None = 0
    """None keeps it running."""
    message: str = ""
    log: str = ""
    waiting: tuple[str, str] | None = None
    """Reason and message of a container that never starts."""
    disrupted: bool = False


@dataclass
class Puppet:
    """A node named `name` in the cluster. `script` is asked once for every pod that is bound to it."""

    cluster: Cluster
    script: Callable[[dict[str, Any]], Act]
    name: str = "puppet"
    acted: list[str] = field(default_factory=list)
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The pods by name, as they were when they were bound."""

    def __enter__(self) -> Puppet:
        self._connection = config.new_client_from_config(str(self.cluster.kubeconfig))
        self._core = client.CoreV1Api(self._connection)
        self._over = threading.Event()
        self._done: set[str] = set()
        self._server = _log_server(self.cluster, self.logs)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._make_node()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._play, self._beat)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._server.shutdown()
        self._core.delete_node(self.name)
        self._connection.close()

    def finish(self, namespace: str, pod: str, act: Act) -> None:
        """Make a pod that was kept running do something now."""
        self._perform(self._core.read_namespaced_pod(pod, namespace), act)

    def _make_node(self) -> None:
        body = {"metadata": {"name": self.name, "labels": {NODE_LABEL: self.name}}}
        try:
            self._core.create_node(body)
        except client.ApiException as error:
            if error.status != 409:
                raise
        self._heartbeat()

    def _heartbeat(self) -> None:
        now = datetime.now(UTC).isoformat()
        host, port = self._server.server_address[:2]
        status = {
            "capacity": {"cpu": "64", "memory": "512Gi", "pods": "500"},
            "allocatable": {"cpu": "64", "memory": "512Gi", "pods": "500"},
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "Puppet", "lastHeartbeatTime": now},
            ],
            "addresses": [{"type": "InternalIP", "address": host}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        self._core.patch_node_status(self.name, {"status": status})

    def _beat(self) -> None:
        while not self._over.wait(10):
            with contextlib.suppress(Exception):
                self._heartbeat()

    def _play(self) -> None:
        """Look at the node's pods ten times a second; a list cannot miss what a broken watch would."""
        while not self._over.wait(0.1):
            try:
                self._look()
            except Exception:  # the show goes on, as a kubelet does
                traceback.print_exc()

    def _look(self) -> None:
        living = "status.phase!=Succeeded,status.phase!=Failed"
        for pod in self._core.list_pod_for_all_namespaces(field_selector=living, label_selector=STAGE_LABEL).items:
            if (pod.spec.node_selector or {}).get(NODE_LABEL) != self.name:
                continue
            if pod.metadata.deletion_timestamp is not None:
                self._remove(pod)
            elif pod.metadata.uid not in self._done:
                self._bind(pod)
                wire = self._connection.sanitize_for_serialization(pod)
                self.seen[pod.metadata.name] = wire
                self.acted.append(pod.metadata.name)
                self._perform(pod, self.script(wire))
                self._done.add(pod.metadata.uid)

    def _bind(self, pod: Any) -> None:
        """Do the scheduler's part too: it would wait for claims that no pod here really mounts."""
        path = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}/binding"
        body = {"metadata": {"name": pod.metadata.name}, "target": {"kind": "Node", "name": self.name}}
        try:
            self._connection.call_api(
                *self._connection.param_serialize(
                    "POST",
                    path,
                    header_params={"Content-Type": "application/json"},
                    body=body,
                    auth_settings=["BearerToken"],
                )
            ).read()
        except client.ApiException as error:
            if error.status not in (404, 409):
                raise

    def _remove(self, pod: Any) -> None:
        try:
            self._core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0)
        except client.ApiException as error:
            if error.status not in (404, 409):
                raise

    def _perform(self, pod: Any, act: Act) -> None:
        name, namespace = pod.metadata.name, pod.metadata.namespace
        self.logs[namespace, name] = act.log
        now = datetime.now(UTC).isoformat()
        status: dict[str, Any] = {"startTime": now, "conditions": []}
        if act.waiting:
            reason, message = act.waiting
            status |= {"phase": "Pending"}
            state: dict[str, Any] = {"waiting": {"reason": reason, "message": message}}
        elif act.exit_code is None:
            status |= {"phase": "Running"}
            state = {"running": {"startedAt": now}}
        else:
            status |= {"phase": "Succeeded" if act.exit_code == 0 else "Failed"}
            ended = {"exitCode": act.exit_code, "message": act.message, "startedAt": now, "finishedAt": now}
            state = {"terminated": ended}
        if act.disrupted:
            status["conditions"].append(
                {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            )
        container = {"name": "job", "image": "puppet", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        status["containerStatuses"] = [container]
        try:
            self._core.patch_namespaced_pod_status(name, namespace, {"status": status})
        except client.ApiException as error:
            if error.status != 404:
                raise


def _log_server(cluster: Cluster, logs: dict[tuple[str, str], str]) -> http.server.ThreadingHTTPServer:
    """Answer for the kubelet: the API server reads logs here."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            _, kind, namespace, pod, _ = path.split("/")
            text = logs.get((namespace, pod))
            if kind != "containerLogs" or text is None:
                self.send_error(404)
                return
            tail = next((int(part.split("=")[1]) for part in query.split("&") if part.startswith("tailLines=")), None)
            content = "".join(text.splitlines(keepends=True)[-tail:] if tail else text).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((cluster.host_address, 0), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate(cluster))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def _certificate(cluster: Cluster) -> tuple[Path, Path]:
    """Return a certificate for this machine's address, signed by the cluster's authority, and its key."""
    keys = cluster.kubeconfig.parent
    certificate, key, request = keys / "puppet.crt", keys / "puppet.key", keys / "puppet.csr"
    extension = keys / "puppet.cnf"
    if not certificate.exists():
        extension.write_text(f"subjectAltName=IP:{cluster.host_address}\n")
        for command in (
            ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=puppet"],
            ["x509", "-req", "-in", request, "-CA", keys / "ca.crt", "-CAkey", keys / "ca.key", "-CAcreateserial",
             "-days", "30", "-extfile", extension, "-out", certificate],
        ):  # fmt: skip
            subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return certificate, key


def wait_for(what: Callable[[], Any], seconds: float = 30, claim: str = "") -> Any:
    """Return the first true answer; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(claim or f"not within {seconds} s; last answer: {answer!r}")
        time.sleep(0.1)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
