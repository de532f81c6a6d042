"""containerd: the programs in pods, and the images they are made of."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import cgroups, processes
from tests.cluster.commands import run, succeeds
from tests.cluster.settings import Instance

PAUSE_IMAGE = "docker.io/plimsoll/pause:dev"

_CONFIG = """\
version = 2
root = "{images}"
state = "{runtime}/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", \
"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{images}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  # Root may lack CAP_SYS_RESOURCE (in a container, in some virtual machines): then a score below its own is refused.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{runtime}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{runtime}/runc"
"""


def start(instance: Instance) -> None:
    """Start containerd and wait until it answers."""
    if processes.running(instance, "containerd"):
        return
    _write_network_config(instance)
    config = instance.runtime / "containerd.toml"
    paths = {"images": instance.images, "runtime": instance.runtime, "socket": instance.containerd_socket}
    config.write_text(_CONFIG.format(**paths, pause=PAUSE_IMAGE))
    processes.start(instance, "containerd", "containerd", "-c", config)
    processes.await_ready(instance, "containerd", lambda: _ctr_succeeds(instance, "version"), seconds=30)
    # A run that was cut off leaves containers that no kubelet will ever ask about.
    _remove_containers(instance)


def stop(instance: Instance) -> None:
    """Kill what runs in pods, remove all containers, stop containerd and take away its mounts. Stop kubelet before."""
    cgroups.kill_all(instance)
    if processes.running(instance, "containerd"):
        _remove_containers(instance)
    processes.stop(instance, ["containerd"], polite_seconds=5)
    unmount_below(instance.runtime, instance.images)


def unmount_below(*folders: Path) -> None:
    """Take away every mount that lies in one of these folders, the deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted(points, reverse=True):
        if any(Path(point).is_relative_to(folder) for folder in folders):
            succeeds("umount", "-l", point)


def _write_network_config(instance: Instance) -> None:
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(instance.runtime / "addresses"),
            "ranges": [[{"subnet": instance.pod_range}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    config = {"cniVersion": "1.0.0", "name": instance.namespace, "plugins": [bridge, ports]}
    folder = instance.runtime / "cni"
    folder.mkdir(exist_ok=True)
    (folder / "10-pods.conflist").write_text(json.dumps(config, indent=1))


def _remove_containers(instance: Instance) -> None:
    tasks = _ctr(instance, "tasks", "ls", "-q").split()
    if tasks:
        _ctr_succeeds(instance, "tasks", "rm", "-f", *tasks)
    containers = _ctr(instance, "containers", "ls", "-q").split()
    if containers:
        _ctr_succeeds(instance, "containers", "rm", *containers)


def _ctr(instance: Instance, *arguments: str) -> str:
    return run("ctr", "-a", instance.containerd_socket, "-n", "k8s.io", *arguments)


def _ctr_succeeds(instance: Instance, *arguments: str) -> bool:
    return succeeds("ctr", "-a", instance.containerd_socket, "-n", "k8s.io", *arguments)
