"""The processor of this machine: its name, its instruction sets, and what artifacts may ask of it."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from plimsoll_api.artifact import ProcessorFeature
from plimsoll_job.sessions import open_session

CPU_INFO = Path("/proc/cpuinfo")
#: The instruction sets that kernels of matrix products choose by, as Linux spells them.
INSTRUCTION_SETS = (
    "sse4_1", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8",
    "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


def processor_name(cpu_info: Path = CPU_INFO) -> str:
    """Return the name that the processor gives itself, its architecture where it has none."""
    return next(_values("model name", cpu_info), platform.machine())


def instruction_sets(cpu_info: Path = CPU_INFO) -> list[str]:
    """Return those of INSTRUCTION_SETS that the processor has; none where the kernel does not tell."""
    told = next((line for key in ("flags", "Features") for line in _values(key, cpu_info)), "").split()
    return [name for name in INSTRUCTION_SETS if name in told]


@cache
def processor_features() -> frozenset[ProcessorFeature]:
    """Return what artifacts may ask for and this processor has, as ONNX Runtime computes on it.

    It is tried, not read: what counts is what the kernels make of the largest products, on a machine of any kind.
    """
    graph, rows, sums = largest_products()
    exact = np.array_equal(open_session(graph, threads=1).run(None, {"rows": rows})[0], sums)
    return frozenset({ProcessorFeature.VNNI} if exact else ())


def largest_products() -> tuple[bytes, NDArray[np.uint8], NDArray[np.int32]]:
    """Return a graph that multiplies the largest activations and weights of 8 bits, such activations, and the sums."""
    rows = np.full((4, 64), np.iinfo(np.uint8).max, np.uint8)
    weights = np.full((64, 64), np.iinfo(np.int8).max, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["rows", "weights"], ["sums"])],
        "sums",
        [helper.make_tensor_value_info("rows", TensorProto.UINT8, rows.shape)],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, None)],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), rows, rows.astype(np.int32) @ weights.astype(np.int32)


def lacking(requires: Collection[ProcessorFeature]) -> list[ProcessorFeature]:
    """Return what of this the processor lacks; nothing is tried where nothing is asked for."""
    return [feature for feature in requires if feature not in processor_features()]


def _values(key: str, cpu_info: Path) -> Iterator[str]:
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            yield value.strip()
