"""How many cores this pod may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

#: Below this many multiply-accumulates a batch, threads cost more to meet than they save; measured on the digits CNN.
SINGLE_THREAD_MACS = 500_000_000
CPU_MAX_FILE = Path("/sys/fs/cgroup/cpu.max")


def core_count(cpu_max_file: Path = CPU_MAX_FILE) -> int:
    """Return the cores of the affinity mask, cut by the cgroup's quota, at least 1.

    A pod limited to two CPUs on a node of sixty-four sees sixty-four: as many threads would only throttle each other.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max_file.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def thread_count(macs: int | None, samples: int) -> int:
    """Return how many threads a batch of so many samples is worth, of these multiply-accumulates each if known."""
    return core_count() if macs is None or macs * samples >= SINGLE_THREAD_MACS else 1
