"""What machine and software measured."""

from __future__ import annotations

import platform

from plimsoll_api.artifact import ArtifactManifest
from plimsoll_api.report import Environment
from plimsoll_job.cores import core_count
from plimsoll_job.errors import UserError
from plimsoll_job.gpu import gpu_names
from plimsoll_job.memory import peak_memory_bytes
from plimsoll_job.packages import SERVING_RUNTIME, package_versions, runtime_build
from plimsoll_job.processor import instruction_sets, lacking, processor_name
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


def check_processor(candidate: ArtifactManifest) -> None:
    """UserError where the pod's processor lacks what the candidate requires: its verdict would hold nowhere."""
    if lacks := lacking(candidate.requires):
        raise UserError(
            f"spec.evaluationRuntime: the candidate requires {', '.join(lacks)}, which this pod's processor, "
            f"{processor_name()}, lacks: sums of its 8-bit products would saturate. Ask for a node that has it and on "
            "which the model is served, or quantize without weightBits",
            reason="ProcessorLacks",
        )


def saturating_notes(baseline: ArtifactManifest) -> list[str]:
    """Return a sentence where the model as given answers otherwise on this processor than on others."""
    if not (lacks := lacking(baseline.requires)):
        return []
    return [
        f"The baseline requires {', '.join(lacks)}, which this processor, {processor_name()}, lacks: sums of its 8-bit "
        "products saturate here, and its answers are others than on a processor that has it."
    ]


def idle_gpu_notes() -> list[str]:
    """Return a sentence where the pod has a GPU that its ONNX Runtime is not made for."""
    if serving_gpu() is not None or not gpu_names():
        return []
    return [
        f"The pod has a GPU, {gpu_names()[0]}, and the ONNX Runtime of its image computes on processors only: the "
        "times are those of the processor."
    ]
