"""What other tests take for granted of the cluster they run on."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster import Cluster, ClusterError
from tests.cluster.project_images import JOB, OPERATOR

pytestmark = pytest.mark.cluster
NAMESPACE = "cluster-test"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.up() as cluster:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        apply(cluster, {"kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}, namespace=None)
        yield cluster
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_a_restricted_pod_runs_writes_to_its_claim_and_its_log_is_read(cluster: Cluster) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    apply(cluster, {"kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim})
    write = "import os; open('/data/x', 'w').write('kept'); print(os.getuid(), open('/data/x').read())"
    apply(cluster, pod("writer", ["-c", write], claim="data"))

    assert finished(cluster, "writer") == "Succeeded"
    assert cluster.kubectl("-n", NAMESPACE, "logs", "writer") == "65532 kept\n"


def test_a_privileged_pod_is_refused(cluster: Cluster) -> None:
    bad = pod("bad", ["-c", "pass"])
    bad["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        apply(cluster, bad)


def test_a_service_answers_by_name_and_exec_works(cluster: Cluster) -> None:
    server = pod("server", ["-m", "http.server", "8000", "--directory", "/etc"])
    apply(cluster, server)
    port = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]}
    apply(cluster, {"kind": "Service", "metadata": {"name": "server"}, "spec": port})
    fetch = (
        "import urllib.request, time\n"
        "for _ in range(50):\n"
        "    try: print(urllib.request.urlopen('http://server/passwd', timeout=2).status); break\n"
        "    except OSError: time.sleep(0.2)"
    )
    apply(cluster, pod("client", ["-c", fetch]))

    assert finished(cluster, "client") == "Succeeded"
    assert cluster.kubectl("-n", NAMESPACE, "logs", "client") == "200\n"
    assert cluster.kubectl("-n", NAMESPACE, "exec", "server", "--", "id", "-u") == "65532\n"


def test_a_pod_reaches_the_machine_and_nothing_beyond(cluster: Cluster) -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer((cluster.host_address, 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        fetch = (
            "import socket, urllib.request\n"
            f"print(urllib.request.urlopen('http://{cluster.host_address}:{server.server_port}', timeout=5).status)\n"
            "try: socket.create_connection(('192.0.2.1', 80), timeout=5); print('out')\n"
            "except OSError: print('no way out')"
        )
        apply(cluster, pod("reacher", ["-c", fetch]))
        assert finished(cluster, "reacher") == "Succeeded"
        server.shutdown()
    assert cluster.kubectl("-n", NAMESPACE, "logs", "reacher") == "204\nno way out\n"


def test_the_job_image_holds_torch_and_no_kopf(cluster: Cluster) -> None:
    check = "import importlib.util as u, torch; print(torch.ones(2).sum().item(), u.find_spec('kopf'))"
    apply(cluster, pod("torch", ["-c", check], image=JOB.name))

    assert finished(cluster, "torch") == "Succeeded"
    assert cluster.kubectl("-n", NAMESPACE, "logs", "torch") == "2.0 None\n"


def pod(name: str, arguments: list[str], *, image: str = OPERATOR.name, claim: str | None = None) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", *arguments],
        "securityContext": RESTRICTED,
    }
    volumes = []
    if claim:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return {
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": volumes,
        },
    }


def apply(cluster: Cluster, manifest: dict[str, Any], *, namespace: str | None = NAMESPACE) -> None:
    where = ["-n", namespace] if namespace else []
    cluster.kubectl(*where, "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", **manifest}))


def finished(cluster: Cluster, name: str, seconds: float = 90) -> str:
    deadline = time.monotonic() + seconds
    while True:
        phase = cluster.kubectl("-n", NAMESPACE, "get", "pod", name, "-o", "jsonpath={.status.phase}")
        if phase in ("Succeeded", "Failed"):
            return phase
        assert time.monotonic() < deadline, cluster.kubectl("-n", NAMESPACE, "describe", "pod", name)
        time.sleep(0.2)
