"""The most host memory that this pod held: the resident sets of its processes, which a limit of memory must hold.

A cgroup's own peak also counts the page cache, which grows with whatever is read up to any limit and is given back
under pressure; and without a cluster the cgroup is not the pod's.
"""

from __future__ import annotations

import ctypes
import gc
import resource
from pathlib import Path

STATUS_FILE = Path("/proc/self/status")
_KIB = 1 << 10
#: What counts as large: activations of a batch, and the weights of a layer.
TENSOR_BYTES = 4 << 20
#: glibc's names of the settings, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1

#: The most that was held while a process ran beside this one.
_beside = 0


def peak_memory_bytes() -> int:
    """Return the most that this process held, together with the largest that ran beside it."""
    # ru_maxrss of a program that was started also counts what its parent held then.
    return max(_status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB, _beside)


def count_beside(peak_bytes: int) -> None:
    """Count a process that ran beside this one, and held so much at most while this one held what it holds now."""
    global _beside  # noqa: PLW0603 — an account of the process, as the kernel's own are
    _beside = max(_beside, _status("VmRSS") + peak_bytes)


def set_imports_aside() -> None:
    """Leave what is there now out of later searches for circles: torch's modules alone take a quarter of a second."""
    gc.collect()
    gc.freeze()


def keep_tensors_apart(tensor_bytes: int = TENSOR_BYTES) -> None:
    """Have the C library take the memory of each large tensor from the kernel, and give it back when that is freed.

    By default it does so above the largest that was freed so far, up to 32 MiB: weights of that size then leave holes,
    which nothing else fills.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, tensor_bytes)
        # Twice the other, as by default; now it would be 128 KiB, and a training step take a sixth longer.
        mallopt(_TRIM_THRESHOLD, 2 * tensor_bytes)


def give_back() -> None:
    """Let go of what only circles of objects hold, and give freed memory back to the kernel.

    Traces and hooks hold modules in circles, which would stay for long: they are few objects, all of them large. And
    the C library keeps what is freed among its small blocks.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(field: str) -> int:
    """Return a field of the process's status in bytes, 0 where the kernel does not tell it."""
    for line in STATUS_FILE.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * _KIB
    return 0
