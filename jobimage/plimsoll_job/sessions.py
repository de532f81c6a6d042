"""ONNX Runtime sessions with pinned threads."""

from __future__ import annotations

import onnxruntime as ort


def open_session(graph: bytes, threads: int) -> ort.InferenceSession:
    """Return a session over the bytes that uses that many threads of this processor and no more.

    Threads that have nothing to do sleep: spinning, they would take the cores from whatever is measured beside them.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
