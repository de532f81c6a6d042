"""The edge to libraries and to code of the model's: what is raised behind it is told as who must act, and where.

Whose an exception is, its traceback tells: the innermost frame that is not of Python's own library. What a library or
the model's code raises is the request's (UserError), with the layer or the node at which it was raised. What passes by
itself, such as a full disk, is to be tried again (TransientError). What our own code raises is a fault of ours: it goes
on as it is, and ending.py tells it as such.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from plimsoll_job.errors import InternalError, PlimsollError, TransientError, UserError

#: What the kernel answers where another moment, or another node, may serve.
PASSING = {
    errno.EAGAIN, errno.EBUSY, errno.EDQUOT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EIO, errno.EMFILE,
    errno.ENETDOWN, errno.ENETUNREACH, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ENOTCONN, errno.ESTALE,
    errno.ETIMEDOUT,
}  # fmt: skip
#: How libraries say in words that there is no memory; only some of them raise a MemoryError.
NO_MEMORY = (
    "out of memory", "can't allocate memory", "not enough memory", "failed to allocate memory", "bad_alloc",
    "alloc_failed",
)  # fmt: skip
#: … that a GPU is in use or broken, and that another process of the training is gone.
GPU_LOST = ("busy or unavailable", "uncorrectable ecc", "gpu is lost", "fallen off the bus")
PEER_LOST = ("closed by peer", "reset by peer", "gloo", "nccl", "c10d")
#: What people call the packages.
LIBRARIES = {
    "onnx": "ONNX",
    "onnxruntime": "ONNX Runtime",
    "PIL": "Pillow",
    "pyarrow": "Arrow",
}
#: Packages whose exceptions are ours all the same: they check what we compute and what we tell.
OWN_PACKAGES = {"__main__", "plimsoll_job", "plimsoll_api", "pydantic", "pydantic_core", "numpy"}
#: Models that this image brings, and what it wraps around those of others.
MODELS = ("plimsoll_job.zoo", "plimsoll_job.load.architectures")
#: What hands on calls of torch that others make: what they raise is not its own.
HANDING_ON = {"__torch_function__", "__torch_dispatch__"}
MAX_WORDS = 300
#: What this process holds of a GPU beside its tensors is less than this share of it.
OTHERS_SHARE = 0.1


@contextlib.contextmanager
def boundary(spec_field: str, refusal: str, *, reason: str = "Unsupported") -> Iterator[None]:
    """Tell what libraries and the model's code raise inside as a UserError of the field, which begins by the refusal.

    TransientError for what waiting mends; what our own code raises goes on as it is.
    """
    try:
        yield
    except PlimsollError:
        raise
    except Exception as error:
        if known := _gpu_memory_of(error, spec_field) or passing_of(error):
            raise known from error
        if (source := _source_of(error)) is None:
            raise
        told = ", ".join([source, *_place_of(error)])
        raise UserError(f"{spec_field}: {refusal}: {told}: {words_of(error)}", reason=reason) from error


def check_passing(error: BaseException) -> None:
    """TransientError where waiting mends what was raised, whoever would be told to change the request for it."""
    if passing := passing_of(error):
        raise passing from error


def unforeseen(error: Exception) -> PlimsollError:
    """Return what an exception that reached the end of the run is told as."""
    if passing := passing_of(error):
        return passing
    ours = [frame for frame in _frames(error.__traceback__) if _package(frame).startswith("plimsoll_")]
    place = f" in {ours[-1].f_globals.get('__name__')}, line {ours[-1].f_lineno}" if ours else ""
    return InternalError(
        f"a fault of Plimsoll{place}: {words_of(error)}; trying again does not mend it. Please report it, with the log "
        "of this pod"
    )


def passing_of(error: BaseException) -> TransientError | None:
    """Return the error as one that waiting mends, None where it cannot."""
    words = str(error).lower()
    if isinstance(error, MemoryError) or any(one in words for one in NO_MEMORY):
        return TransientError(
            f"memory ran out: {words_of(error)}; where it does again, raise spec.runtime.resources.limits, or give "
            "smaller samples",
            reason="OutOfMemory",
        )
    if any(one in words for one in GPU_LOST):
        return TransientError(f"the GPU cannot be used now: {words_of(error)}", reason="GpuUnusable")
    lost = isinstance(error, RuntimeError) and any(one in words for one in PEER_LOST)
    if lost or isinstance(error, ConnectionError | TimeoutError):
        return TransientError(f"another process does not answer: {words_of(error)}", reason="PeerLost")
    if isinstance(error, OSError) and error.errno in PASSING:
        return TransientError(f"the node or a store cannot serve now: {words_of(error)}", reason="StoreUnreadable")
    return None


def _gpu_memory_of(error: BaseException, spec_field: str) -> PlimsollError | None:
    """Return that the GPU is too small, or that others hold its memory; None where the error is another."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.OutOfMemoryError):
        return None
    told = ". ".join(str(error).split(". ")[:2])
    if torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        others = whole - free - torch.cuda.memory_reserved()
        if others > OTHERS_SHARE * whole:
            return TransientError(
                f"{spec_field}: the GPU's memory does not hold it now ({told}); other processes hold {others} of its "
                f"{whole} bytes",
                reason="GpuShared",
            )
    return UserError(
        f"spec.runtime.resources.limits: the GPU's memory does not hold what {spec_field} computes there "
        f"({told}); ask for a larger GPU, for none, or for a smaller microBatchSize where the step trains",
        reason="GpuTooSmall",
    )


def words_of(error: BaseException) -> str:
    """Return the exception's type and the first paragraph of its message: libraries dump whole graphs behind it."""
    first = " ".join(str(error).strip().split("\n\n")[0].split())
    cut = first if len(first) <= MAX_WORDS else f"{first[:MAX_WORDS]} …"
    return f"{type(error).__name__}: {cut}" if cut else type(error).__name__


def _source_of(error: BaseException) -> str | None:
    """Return whose the exception is, in words; None where it is ours."""
    package = type(error).__module__.partition(".")[0]
    if package not in LIBRARIES and package != "torch":
        frames = [
            frame
            for frame in _frames(error.__traceback__)
            if not _is_pythons(_package(frame)) and frame.f_code.co_name not in HANDING_ON
        ]
        package = _package(frames[-1]) if frames else ""
        if frames and str(frames[-1].f_globals.get("__name__")).startswith(MODELS):
            return "the model"
    if package in OWN_PACKAGES or not package:
        # What we raise in place of a library's, so that callers know its type.
        return None if error.__cause__ is None else _source_of(error.__cause__)
    return LIBRARIES.get(package, package)


def _place_of(error: BaseException) -> list[str]:
    """Return in words at which layer of a module, or at which node of a graph, the exception was raised, if at any."""
    frames = _frames(error.__traceback__)
    if layer := _layer_of(frames):
        return [f"at layer {layer}"]
    node = next((found for frame in reversed(frames) if (found := _node_of(frame))), "")
    if node:
        return [f"at node {node}"]
    return [] if error.__cause__ is None else _place_of(error.__cause__)


def _layer_of(frames: list[FrameType]) -> str:
    """Return the name of the innermost module that was called, within the outermost one."""
    # Where torch was not loaded there is no module.
    torch = sys.modules.get("torch")
    if torch is None:
        return ""
    called = [one for frame in frames if isinstance(one := frame.f_locals.get("self"), torch.nn.Module)]
    # A module of ours, such as the one that trains, or of torch's tracer holds the model.
    models = [one for one in called if type(one).__module__.startswith(MODELS) or _is_anothers(one)]
    names = {id(layer): name for name, layer in models[0].named_modules()} if models else {}
    return next((names[id(one)] for one in reversed(models) if names.get(id(one))), "")


def _is_anothers(module: Any) -> bool:
    return not type(module).__module__.startswith(("plimsoll_job.", "torch.jit._trace"))


def _node_of(frame: FrameType) -> str:
    onnx = sys.modules.get("onnx")
    if onnx is None:
        return ""
    # Tools that go through a graph call the node that they are at by some such name.
    local: Any = frame.f_locals
    found = [one for name, one in local.items() if "node" in name and isinstance(one, onnx.NodeProto)]
    return next((one.name or one.op_type for one in found), "")


def _frames(traceback: TracebackType | None) -> list[FrameType]:
    frames = []
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    return frames


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_pythons(package: str) -> bool:
    return package in sys.stdlib_module_names
