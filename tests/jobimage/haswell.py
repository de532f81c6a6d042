"""A processor with AVX2 and without VNNI, as many nodes of a cloud have it: qemu computes as it does, on any x86-64."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

QEMU, PACKAGE = "qemu-x86_64", "qemu-user"
COMMAND = (QEMU, "-cpu", "Haswell", sys.executable)
MODEL, INPUTS, ANSWERS, DONE = "model.onnx", "inputs.npz", "answers.npy", "done"

#: The answers of an ONNX graph to one batch, as a processor gives them.
Serve = Callable[[bytes, Mapping[str, NDArray[Any]]], NDArray[Any]]


def why_not() -> str | None:
    """Return why no such processor is to be had here, None when it is; qemu is installed where it is missing."""
    if platform.machine() != "x86_64":
        return f"qemu's x86-64 cannot run the Python of {platform.machine()}"
    if shutil.which(QEMU):
        return None
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return f"{QEMU} is missing, and apt is not to be had: install {PACKAGE}"
    from tests.cluster.binaries import install_debian  # noqa: PLC0415 — it knows of clusters, and this needs none

    install_debian({QEMU: PACKAGE})
    return None


def here(graph: bytes | str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Answer on the processor of this process, by one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(inputs))[0])


class Haswell:
    """A process that answers one batch after another; starting it takes a second or two."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._log = Path(self._directory.name) / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*COMMAND, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
            )

    def __call__(self, graph: bytes, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the graph's answers; AssertionError with what the process said when it gave none."""
        assert self._process.stdin
        assert self._process.stdout
        directory = Path(self._directory.name)
        (directory / MODEL).write_bytes(graph)
        np.savez(directory / INPUTS, **dict(inputs))  # type: ignore[arg-type]
        self._process.stdin.write(f"{directory}\n")
        answered = self._process.stdout.readline().strip()
        assert answered == DONE, f"{answered}\n{self._log.read_text()}"
        return np.asarray(np.load(directory / ANSWERS))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()


def _answer_all() -> None:
    for line in sys.stdin:
        directory = Path(line.strip())
        try:
            with np.load(directory / INPUTS) as inputs:
                np.save(directory / ANSWERS, here(str(directory / MODEL), inputs))
            print(DONE, flush=True)
        except Exception as error:
            print(repr(error).replace("\n", " "), flush=True)


if __name__ == "__main__":
    _answer_all()
