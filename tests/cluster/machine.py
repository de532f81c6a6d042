"""What containerd and kubelet change on the whole machine: remembered before, put back after."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from tests.cluster import processes
from tests.cluster.settings import Instance, instances

_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# Their paths are fixed in the programs: they hold little, and nothing after all instances are down.
_FOLDERS = ("/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods")
_SYSTEM = Path("/proc/sys")
_MEMORY = Path("/run/plimsoll/machine.json")


def remember() -> None:
    """Write down how things are, unless an instance that is up did so. Hold the lock `slots` meanwhile."""
    if not _MEMORY.exists():
        settings = {name: _read(name) for name in _SETTINGS}
        absent = [folder for folder in _FOLDERS if not Path(folder).exists()]
        _MEMORY.write_text(json.dumps({"settings": settings, "absent": absent}))


def restore(leaving: Instance) -> None:
    """Put all back if no other instance than `leaving` runs a node. Hold the lock `slots` meanwhile."""
    others = (instance for instance in instances() if instance != leaving)
    if not _MEMORY.exists() or any(processes.running(instance, "containerd") for instance in others):
        return
    memory = json.loads(_MEMORY.read_text())
    for name, value in memory["settings"].items():
        if value is not None and _read(name) != value:
            with contextlib.suppress(OSError):
                (_SYSTEM / name).write_text(value)
    for folder in memory["absent"]:
        shutil.rmtree(folder, ignore_errors=True)
    _MEMORY.unlink()


def _read(name: str) -> str | None:
    try:
        return (_SYSTEM / name).read_text().strip()
    except OSError:
        return None
