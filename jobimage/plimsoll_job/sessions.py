"""ONNX Runtime sessions with pinned threads, on the processor or on the pod's GPU."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort

from plimsoll_job.errors import UserError
from plimsoll_job.export.lean import read_lean
from plimsoll_job.gpu import gpu_names

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def serving_gpu() -> str | None:
    """Return the name of the GPU that models are served on here, None where they are served on the processor."""
    return next(iter(gpu_names()), None) if CUDA in ort.get_available_providers() else None


def open_served(graph: bytes | Path, threads: int) -> ort.InferenceSession:
    """Return a session as models are served here: on the pod's GPU if it has one, else on its processor.

    Its settings are ONNX Runtime's defaults, those of servers: on a GPU, products of Float32 matrices are in TF32.
    UserError when the pod has a GPU that ONNX Runtime cannot use: what the processor does would be taken for its work.
    """
    name = serving_gpu()
    if name is None:
        return open_session(graph, threads)
    _load_cuda()
    options = _options(threads)
    # It warns of every node that is computed on the processor, the cheaper way for what tells shapes.
    options.log_severity_level = 3
    session = _open(graph, options, CUDA)
    if CUDA not in session.get_providers():
        raise UserError(
            f"spec.runtime.resources.limits: ONNX Runtime {ort.__version__} cannot use the GPU, {name}: its log says "
            "why; it needs a driver for CUDA 13 and the CUDA libraries of the job image. Without a GPU in the limits "
            "the processor is measured",
            reason="GpuUnusable",
        )
    return session


def open_session(graph: bytes | Path, threads: int) -> ort.InferenceSession:
    """Return a session over the bytes or the file that uses that many threads of this processor and no more.

    Threads that have nothing to do sleep: spinning, they would take the cores from whatever is measured beside them.
    """
    return _open(graph, _options(threads))


def open_frugally(graph: bytes | Path, *, as_it_is: bool = False) -> ort.InferenceSession:
    """Return a session of one thread that holds the weights of a file once; too slow to be timed.

    ONNX Runtime would keep them a second time, packed for its kernels. `as_it_is` computes every node in its place:
    by default ONNX Runtime turns to short branches last, and holds what they read until then.
    """
    options = _frugal_options()
    if as_it_is:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    return _open(graph, options)


def open_restoring(path: Path) -> ort.InferenceSession:
    """Return a session like a frugal one, in which weights of a smaller format become float32 as they are used.

    Elsewhere all do when the session opens. Here each run restores them one after another, so it computes every node
    in its place, but where only fused nodes compute in integers.
    """
    if all(node.op_type != "DequantizeLinear" for node in read_lean(path).proto.graph.node):
        return open_frugally(path, as_it_is=True)
    options = _frugal_options()
    # The last level folds whatever it is told.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return _open(path, options, disabled_optimizers=["ConstantFolding"])


def write_optimized(path: Path, target: Path) -> None:
    """Write the file's model as ONNX Runtime simplifies it at its basic level; external data stays where it is."""
    options = _frugal_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    _open(path, options)


def _frugal_options() -> ort.SessionOptions:
    options = _options(1)
    # It asks for powers of two, and keeps them.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(graph: bytes | Path, options: ort.SessionOptions, *before: str, **more: Any) -> ort.InferenceSession:
    return ort.InferenceSession(graph, options, providers=[*before, CPU], **more)


@cache
def _load_cuda() -> None:
    """Load the CUDA libraries that lie among the Python packages, where the linker would not look."""
    ort.preload_dlls(directory="")
