"""A fresh Kubernetes control plane with fake nodes: each contender gets one of its own, in the same state."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.operator import kwok
from bench.operator.workload import CLAIMS, Answers
from tests.cluster import Mode, binaries, certificates, control_plane, fake_nodes, lifecycle, network, tool
from tests.cluster.commands import run
from tests.cluster.locks import exclusive
from tests.cluster.settings import Instance, claim_instance

INSTANCE = "bench"
SYSTEM_NAMESPACE = "plimsoll-system"
ACCOUNT = "contender"
USER = f"system:serviceaccount:{SYSTEM_NAMESPACE}:{ACCOUNT}"
PROGRAMS = ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "kwok")


@dataclass(frozen=True)
class ControlPlane:
    """What runs, and how to speak with it."""

    instance: Instance

    @property
    def audit_log(self) -> Path:
        """The writes of the contender and the creations of CompressionJobs, a line of JSON each."""
        return self.instance.runtime / "audit.log"

    def pids(self) -> dict[str, int]:
        """Return the process ids of the programs."""
        return {name: int((self.instance.pids / name).read_text().split()[0]) for name in PROGRAMS}

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl as administrator and return what it prints."""
        environment = {**os.environ, "KUBECONFIG": str(self.instance.kubeconfig)}
        return run(tool("kubectl"), *arguments, stdin=stdin.encode(), environment=environment, seconds=120)

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Apply the manifests."""
        self.kubectl("apply", "--server-side", "-f", "-", stdin="\n---\n".join(map(json.dumps, manifests)))

    def contender_kubeconfig(self) -> Path:
        """Write a kubeconfig with a token of the contender's service account, and return where."""
        config = json.loads(self.instance.kubeconfig.read_text())
        token = self.kubectl("-n", SYSTEM_NAMESPACE, "create", "token", ACCOUNT, "--duration", "2h").strip()
        config["users"][0]["user"] = {"token": token}
        config["contexts"][0]["context"]["namespace"] = SYSTEM_NAMESPACE
        path = self.instance.runtime / "contender.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def make_namespace(self, name: str) -> None:
        """Make a namespace in which pods find the claims that they mount, bound."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.apply(*(make(name, claim) for claim in CLAIMS for make in (_volume, _claim)))
        self.kubectl("-n", name, "wait", "--for=jsonpath={.status.phase}=Bound", "pvc", "--all", "--timeout=60s")
        self.kubectl("-n", name, "wait", "--for=create", "serviceaccount/default", "--timeout=60s")


@contextmanager
def running(answers: Answers, crds: Path) -> Iterator[ControlPlane]:
    """Bring up a control plane with nodes, CRDs and the contender's account; take it down at the end."""
    binaries.build(Mode.FAKE_NODES)
    lifecycle.take_down(INSTANCE)  # what a run that was killed left behind
    try:
        with exclusive("slots"):
            instance = claim_instance(INSTANCE)
        network.create(instance)
        certificates.create(instance)
        plane = ControlPlane(instance)
        control_plane.start_api(instance, *_audit_flags(plane))
        control_plane.start_controllers(instance)
        fake_nodes.start(instance, [kwok.write_config(instance.runtime, answers)])
        plane.apply(*_account())
        plane.kubectl("apply", "--server-side", "-f", str(crds))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield plane
    finally:
        lifecycle.take_down(INSTANCE)


def _audit_flags(plane: ControlPlane) -> tuple[str | Path, ...]:
    writes = ["create", "update", "patch", "delete", "deletecollection"]
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "users": [USER], "verbs": writes},
            {
                "level": "Metadata",
                "verbs": ["create"],
                "resources": [{"group": "plimsoll.dev", "resources": ["compressionjobs"]}],
            },
            {"level": "None"},
        ],
    }
    file = plane.instance.runtime / "audit-policy.json"
    file.write_text(json.dumps(policy))
    return (
        "--audit-policy-file", file, "--audit-log-path", plane.audit_log,
        "--audit-log-mode", "batch", "--audit-log-batch-max-wait", "1s",
    )  # fmt: skip


def _account() -> list[dict[str, Any]]:
    subject = {"kind": "ServiceAccount", "namespace": SYSTEM_NAMESPACE, "name": ACCOUNT}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"namespace": SYSTEM_NAMESPACE, "name": ACCOUNT},
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ACCOUNT},
            "roleRef": role,
            "subjects": [subject],
        },
    ]


def _volume(namespace: str, claim: str) -> dict[str, Any]:
    """Return a volume that nothing really stands behind."""
    name = _volume_name(namespace, claim)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "hostPath": {"path": f"/nowhere/{name}"},
            "claimRef": {"namespace": namespace, "name": claim},
        },
    }


def _claim(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": _volume_name(namespace, name),
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def _volume_name(namespace: str, claim: str) -> str:
    return f"{namespace}-{claim}"
