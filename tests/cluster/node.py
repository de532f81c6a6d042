"""kubelet and kube-proxy: what makes this machine the cluster's one node."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

from tests.cluster import cgroups, machine, processes, runtime
from tests.cluster.api_client import ApiClient
from tests.cluster.binaries import tool
from tests.cluster.control_plane import answers
from tests.cluster.locks import exclusive
from tests.cluster.progress import say
from tests.cluster.settings import NODE_NAME, Instance

_LOG_LINKS = Path("/var/log/containers")


def start(instance: Instance) -> None:
    """Start kubelet and kube-proxy, and wait until the node is ready and its services and names answer."""
    client = ApiClient(instance.kubeconfig)
    if not processes.running(instance, "kubelet"):
        cgroups.create(instance)
        instance.pod_logs.mkdir(parents=True, exist_ok=True)
        instance.kubelet.mkdir(parents=True, exist_ok=True)
    config = instance.runtime / "kubelet.json"
    config.write_text(json.dumps(_kubelet_config(instance), indent=1))
    processes.start(
        instance, "kubelet", tool("kubelet"), "--config", config,
        "--kubeconfig", instance.keys / "kubelet.kubeconfig", "--root-dir", instance.kubelet,
        "--hostname-override", NODE_NAME, "--node-ip", instance.node_address,
    )  # fmt: skip
    processes.start(
        instance, "kube-proxy", tool("kube-proxy"), "--kubeconfig", instance.keys / "proxy.kubeconfig",
        "--hostname-override", NODE_NAME, "--proxy-mode", "nftables", "--cluster-cidr", instance.pod_range,
        # The size of the connection table belongs to the machine, not to this namespace.
        "--conntrack-max-per-core", "0",
    )  # fmt: skip
    processes.await_ready(instance, "kubelet", partial(_node_ready, client), seconds=90)
    say("node ready")
    url = f"https://{instance.api_service_address}/readyz"
    processes.await_ready(instance, "kube-proxy", partial(answers, url), seconds=60)
    say("services answer")
    processes.await_ready(instance, "kubelet", partial(_dns_ready, client), seconds=60)
    say("DNS ready")


def stop(instance: Instance) -> None:
    """Stop the node's programs and all pods; leave nothing of theirs mounted, running or written."""
    processes.stop(instance, ["kubelet", "kube-proxy"])
    runtime.stop(instance)
    runtime.unmount_below(instance.kubelet)
    cgroups.remove(instance)
    with exclusive("slots"):
        machine.restore(instance)
    for folder in (instance.kubelet, instance.pod_logs):
        shutil.rmtree(folder, ignore_errors=True)
    if _LOG_LINKS.is_dir():
        for link in _LOG_LINKS.iterdir():
            if link.is_symlink() and link.readlink().is_relative_to(instance.pod_logs):
                link.unlink()


def _node_ready(client: ApiClient) -> bool:
    node = client.get(f"/api/v1/nodes/{NODE_NAME}") or {}
    conditions = node.get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def _dns_ready(client: ApiClient) -> bool:
    deployment = client.get("/apis/apps/v1/namespaces/kube-system/deployments/coredns") or {}
    return bool(deployment.get("status", {}).get("availableReplicas"))


def _kubelet_config(instance: Instance) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{instance.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{instance.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(instance.keys / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(instance.keys / "kubelet.crt"),
        "tlsPrivateKeyFile": str(instance.keys / "kubelet.key"),
        "clusterDNS": [instance.dns_address],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "podLogsDir": str(instance.pod_logs),
        "volumePluginDir": str(instance.kubelet / "volume-plugins"),
        "serializeImagePulls": False,
        # Images come from no registry: one that is collected does not come back.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "4s",
    }
