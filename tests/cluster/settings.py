"""Where everything lies and which addresses each instance has."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from tests.cluster.errors import ClusterError

NODE_NAME = "node-1"
SLOTS = 16
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


class Mode(IntEnum):
    """How much of Kubernetes runs. A higher mode can do all that a lower one can, but for fake nodes."""

    API_ONLY = 1
    """etcd and the API server: objects are stored and validated, nothing acts on them."""
    FAKE_NODES = 2
    """Also the controllers, the scheduler and kwok, which pretends to run the pods of fake nodes."""
    NODE = 3
    """Also containerd, kubelet, kube-proxy and DNS: pods really run."""


def cache_directory() -> Path:
    """Return the root of all that is kept between runs: `PLIMSOLL_CACHE`, or `plimsoll` in the user's cache."""
    chosen = os.environ.get("PLIMSOLL_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "plimsoll"


def default_name() -> str:
    """Return the name of the instance that commands mean when none is given."""
    return os.environ.get("PLIMSOLL_CLUSTER") or "default"


@dataclass(frozen=True)
class Instance:
    """One cluster: its name and, by its slot, its addresses. Two instances never share a path or an address."""

    name: str
    slot: int
    cache: Path
    """The cache that it was brought up with, which another checkout need not share."""

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def runtime(self) -> Path:
        """Sockets, keys, process ids and etcd's data: gone after `down`."""
        return runtime_directory(self.name)

    @property
    def keys(self) -> Path:
        return self.runtime / "keys"

    @property
    def pids(self) -> Path:
        return self.runtime / "pids"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, readable by its owner only."""
        return self.keys / "admin.kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        return self.runtime / "containerd.sock"

    @property
    def etcd_data(self) -> Path:
        # In memory: the data is thrown away anyway, and the disk's speed is not what tests are about.
        return Path("/dev/shm") / f"plimsoll-{self.name}-etcd"

    @property
    def storage(self) -> Path:
        """What lies on disk: images (kept between runs), pods' files, volumes and logs."""
        return storage_directory(self.name, self.cache)

    @property
    def images(self) -> Path:
        return self.storage / "containerd"

    @property
    def kubelet(self) -> Path:
        return self.storage / "kubelet"

    @property
    def volumes(self) -> Path:
        return self.storage / "volumes"

    @property
    def logs(self) -> Path:
        return self.storage / "log"

    @property
    def audit_log(self) -> Path:
        """Where the API server of a cluster with a node writes down the operator's requests."""
        return self.logs / "audit.log"

    @property
    def pod_logs(self) -> Path:
        return self.storage / "pod-log"

    @property
    def namespace(self) -> str:
        """The network namespace that holds the whole cluster."""
        return f"plimsoll-{self.name}"

    @property
    def namespace_file(self) -> Path:
        return Path("/run/netns") / self.namespace

    @property
    def cgroup(self) -> str:
        return f"plimsoll-{self.name}"

    @property
    def host_link(self) -> str:
        return f"plimsoll{self.slot}h"

    @property
    def node_link(self) -> str:
        return f"plimsoll{self.slot}n"

    @property
    def host_address(self) -> str:
        """The machine itself, as pods see it."""
        return f"172.31.{255 - self.slot}.1"

    @property
    def node_address(self) -> str:
        return f"172.31.{255 - self.slot}.2"

    @property
    def pod_range(self) -> str:
        return f"10.244.{self.slot}.0/24"

    @property
    def service_range(self) -> str:
        return f"10.{96 + self.slot}.0.0/16"

    @property
    def api_service_address(self) -> str:
        return f"10.{96 + self.slot}.0.1"

    @property
    def dns_address(self) -> str:
        return f"10.{96 + self.slot}.0.10"

    @property
    def server(self) -> str:
        return f"https://{self.node_address}:6443"


def runtime_directory(name: str) -> Path:
    """Return where the short-lived files of the instance `name` lie, whether it runs or not."""
    # Not below the cache: a Unix socket's path has at most 107 characters.
    return Path("/run/plimsoll") / check_name(name)


def storage_directory(name: str, cache: Path) -> Path:
    """Return where the instance `name` keeps what lies on disk, whether it runs or not."""
    return cache / "clusters" / check_name(name)


def check_name(name: str) -> str:
    """Return `name`, or raise ClusterError when it cannot name an instance."""
    if not _NAME.fullmatch(name):
        raise ClusterError(f"{name!r} cannot name a cluster: at most 20 lower-case letters, digits and inner hyphens")
    return name


def find_instance(name: str) -> Instance | None:
    """Return the instance `name` if it has been brought up, at least in part, and not taken down since."""
    try:
        slot, cache = (runtime_directory(name) / "slot").read_text().splitlines()
    except (FileNotFoundError, ValueError):
        return None
    return Instance(name, int(slot), Path(cache))


def instances() -> list[Instance]:
    """Return all instances that have been brought up, at least in part."""
    root = Path("/run/plimsoll")
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    found = (find_instance(name) for name in names)
    return [instance for instance in found if instance]


def claim_instance(name: str) -> Instance:
    """Return the instance `name`, giving it the lowest free slot if it has none. Hold the lock `slots` meanwhile."""
    found = find_instance(name)
    if found:
        return found
    taken = {other.slot for other in instances()}
    free = next((slot for slot in range(SLOTS) if slot not in taken), None)
    if free is None:
        raise ClusterError(f"{SLOTS} clusters are up already; take one down with `python -m tests.cluster down`")
    instance = Instance(name, free, cache_directory())
    instance.runtime.mkdir(parents=True, exist_ok=True)
    (instance.runtime / "slot").write_text(f"{free}\n{instance.cache}\n")
    return instance
