"""What machine and software measured."""

from __future__ import annotations

import platform

from plimsoll_api.report import Environment
from plimsoll_job.cores import core_count
from plimsoll_job.gpu import gpu_names
from plimsoll_job.memory import peak_memory_bytes
from plimsoll_job.packages import SERVING_RUNTIME, package_versions, runtime_build
from plimsoll_job.processor import instruction_sets, processor_name
from plimsoll_job.sessions import serving_gpu

PACKAGES = ("plimsoll", *SERVING_RUNTIME, "numpy")


def describe_environment(threads: int) -> Environment:
    """Return the machine, the software, and the most memory this pod has held."""
    return Environment(
        processor=processor_name(),
        instruction_sets=instruction_sets(),
        runtime=runtime_build(),
        gpu=serving_gpu(),
        cores=core_count(),
        threads=threads,
        packages={"python": platform.python_version(), **package_versions(PACKAGES)},
        peak_memory_bytes=peak_memory_bytes(),
    )


def idle_gpu_notes() -> list[str]:
    """Return a sentence where the pod has a GPU that its ONNX Runtime is not made for."""
    if serving_gpu() is not None or not gpu_names():
        return []
    return [
        f"The pod has a GPU, {gpu_names()[0]}, and the ONNX Runtime of its image computes on processors only: the "
        "times are those of the processor."
    ]
