"""What machine and software measured."""

from __future__ import annotations

import platform
from pathlib import Path

from plimsoll_api.report import Environment
from plimsoll_job.cores import core_count
from plimsoll_job.memory import peak_memory_bytes
from plimsoll_job.packages import package_versions

PACKAGES = ("plimsoll", "onnxruntime", "numpy")


def describe_environment(threads: int) -> Environment:
    """Return the machine, the software, and the most memory this pod has held."""
    return Environment(
        processor=_processor(),
        cores=core_count(),
        threads=threads,
        packages={"python": platform.python_version(), **package_versions(PACKAGES)},
        peak_memory_bytes=peak_memory_bytes(),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
