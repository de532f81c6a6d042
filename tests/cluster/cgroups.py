"""The control groups of one instance's pods: a tree of its own, so that two kubelets do not clear away each other's."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from tests.cluster import processes
from tests.cluster.settings import Instance

_ROOT = Path("/sys/fs/cgroup")


def create(instance: Instance) -> None:
    """Make the instance's group in every hierarchy (version 1) or in the one there is (version 2)."""
    for group in _groups(instance):
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # A new cpuset of version 1 is empty, and nothing can be put into an empty one.
            own, above = group / setting, group.parent / setting
            if own.exists() and above.exists() and not own.read_text().strip():
                own.write_text(above.read_text())
    if _unified():
        controllers = (_ROOT / "cgroup.controllers").read_text().split()
        for group in (_ROOT, _ROOT / instance.cgroup):
            for controller in controllers:
                with contextlib.suppress(OSError):
                    (group / "cgroup.subtree_control").write_text(f"+{controller}")


def kill_all(instance: Instance) -> None:
    """Kill every process of every pod and wait until they are gone."""
    found: set[int] = set()
    for group in _groups(instance):
        for file in group.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in file.read_text().split())
    processes.kill_and_wait(found - {0})


def remove(instance: Instance) -> None:
    """Remove the instance's groups; they must hold no process."""
    for _ in range(20):
        for group in _groups(instance):
            below = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
            for path in [*below, group]:
                with contextlib.suppress(OSError):
                    path.rmdir()
        if not any(group.exists() for group in _groups(instance)):
            return
        time.sleep(0.1)  # the kernel lets go of a group some time after its last process


def _unified() -> bool:
    return (_ROOT / "cgroup.controllers").exists()


def _groups(instance: Instance) -> list[Path]:
    if _unified():
        return [_ROOT / instance.cgroup]
    return [hierarchy / instance.cgroup for hierarchy in sorted(_ROOT.iterdir()) if not hierarchy.is_symlink()]
