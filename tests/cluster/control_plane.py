"""etcd, the API server, the controllers and the scheduler."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

from tests.cluster import processes
from tests.cluster.api_client import ApiClient
from tests.cluster.binaries import tool
from tests.cluster.progress import say
from tests.cluster.settings import Instance

NAMES = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")


def start_api(instance: Instance, *flags: str | Path) -> None:
    """Start etcd and the API server, with these flags beside its own, and wait until they serve."""
    keys = instance.keys
    instance.etcd_data.mkdir(mode=0o700, parents=True, exist_ok=True)
    processes.start(
        instance, "etcd", tool("etcd"),
        "--data-dir", instance.etcd_data, "--unsafe-no-fsync", "--log-level", "warn",
        "--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
        "--listen-peer-urls", "http://127.0.0.1:2380", "--quota-backend-bytes", str(4 << 30),
    )  # fmt: skip
    processes.start(
        instance, "kube-apiserver", tool("kube-apiserver"),
        "--etcd-servers", "http://127.0.0.1:2379",
        "--advertise-address", instance.node_address, "--secure-port", "6443",
        "--service-cluster-ip-range", instance.service_range,
        "--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
        "--token-auth-file", keys / "tokens.csv", "--client-ca-file", keys / "ca.crt",
        "--tls-cert-file", keys / "api.crt", "--tls-private-key-file", keys / "api.key",
        "--kubelet-client-certificate", keys / "api-to-kubelet.crt",
        "--kubelet-client-key", keys / "api-to-kubelet.key",
        "--kubelet-certificate-authority", keys / "ca.crt",
        "--kubelet-preferred-address-types", "InternalIP",
        "--service-account-issuer", "https://kubernetes.default.svc",
        "--service-account-signing-key-file", keys / "service-account.key",
        "--service-account-key-file", keys / "service-account.pub",
        "--allow-privileged", *flags,
    )  # fmt: skip
    client = ApiClient(instance.kubeconfig)
    processes.await_ready(instance, "kube-apiserver", client.ready, seconds=120)
    say("etcd and API server ready")


def audit_flags(instance: Instance) -> tuple[str | Path, ...]:
    """Return the API server's flags by which it writes down what the operator asks of it."""
    policy = Path(__file__).parent / "audit.yaml"
    return ("--audit-policy-file", policy, "--audit-log-path", instance.audit_log, "--audit-log-maxsize", "200")


def start_controllers(instance: Instance) -> None:
    """Start the controller manager and the scheduler, and wait until pods can be made."""
    keys = instance.keys
    # One instance each, and limits that tests with many objects do not run into.
    common = ("--leader-elect=false", "--kube-api-qps", "200", "--kube-api-burst", "400")
    processes.start(
        instance, "kube-controller-manager", tool("kube-controller-manager"), *common,
        "--kubeconfig", keys / "controller-manager.kubeconfig", "--use-service-account-credentials",
        "--concurrent-job-syncs", "20", "--root-ca-file", keys / "ca.crt",
        # A claim that is made together with its volume misses it at first, and binds in the next round.
        "--pvclaimbinder-sync-period", "1s",
        "--service-account-private-key-file", keys / "service-account.key",
        "--cluster-signing-cert-file", keys / "ca.crt", "--cluster-signing-key-file", keys / "ca.key",
    )  # fmt: skip
    processes.start(
        instance, "kube-scheduler", tool("kube-scheduler"), *common,
        "--kubeconfig", keys / "scheduler.kubeconfig",
    )  # fmt: skip
    client = ApiClient(instance.kubeconfig)
    for name, port in (("kube-controller-manager", 10257), ("kube-scheduler", 10259)):
        url = f"https://{instance.node_address}:{port}/healthz"
        processes.await_ready(instance, name, partial(answers, url), seconds=60)
    processes.await_ready(
        instance,
        "kube-controller-manager",
        lambda: client.get("/api/v1/namespaces/default/serviceaccounts/default") is not None,
        seconds=60,
    )
    say("controllers and scheduler ready")


def answers(url: str) -> bool:
    """Say whether an HTTPS server of the cluster answers with success; its certificate is its own, not the CA's."""
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=2, context=unverified) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False
