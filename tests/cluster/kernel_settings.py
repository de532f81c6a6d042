"""Kernel settings that kubelet changes for the whole machine: remembered before, put back after."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from tests.cluster import processes
from tests.cluster.settings import Instance, instances

_CHANGED_BY_KUBELET = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_SYSTEM = Path("/proc/sys")
_MEMORY = Path("/run/plimsoll/kernel-settings.json")


def remember() -> None:
    """Write down the present values, unless an instance that is up did so. Hold the lock `slots` meanwhile."""
    if not _MEMORY.exists():
        values = {name: _read(name) for name in _CHANGED_BY_KUBELET}
        _MEMORY.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def restore(leaving: Instance) -> None:
    """Put the values back if no other instance than `leaving` runs a kubelet. Hold the lock `slots` meanwhile."""
    others = (instance for instance in instances() if instance != leaving)
    if not _MEMORY.exists() or any(processes.running(instance, "kubelet") for instance in others):
        return
    for name, value in json.loads(_MEMORY.read_text()).items():
        if _read(name) != value:
            with contextlib.suppress(OSError):
                (_SYSTEM / name).write_text(value)
    _MEMORY.unlink()


def _read(name: str) -> str | None:
    try:
        return (_SYSTEM / name).read_text().strip()
    except OSError:
        return None
