"""Pieces of a benchmark in processes that are forked where the large libraries are loaded already.

Importing them costs a process half of a minute on a busy core, and more than most of what it is then to do.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

from bench.child import PACKAGES, Ended

from plimsoll_job.telemetry import SWITCHES

_KIB = 1 << 10


class Forks:
    """Processes that begin with these modules imported; `variables` are in their environment."""

    def __init__(self, imported: Sequence[str], variables: Mapping[str, str]) -> None:
        path = os.pathsep.join(str(package) for package in PACKAGES)
        os.environ.update({**SWITCHES, "PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE", **variables})
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(imported))

    def run(self, module: str, arguments: Sequence[str], *, limit_seconds: float, memory_bytes: int) -> Ended:
        """Have the module's `main` take the arguments, print what it tells, and return its exit code.

        Past the limit the process is killed with all it started. `memory_bytes` bounds the private memory of each.
        """
        with tempfile.TemporaryDirectory(prefix="plimsoll-bench-") as directory:
            output, used = Path(directory, "output"), Path(directory, "used")
            output.touch()
            began = time.monotonic()
            process = self._context.Process(target=_work, args=(module, list(arguments), output, used, memory_bytes))
            process.start()
            try:
                process.join(limit_seconds)
                timed_out = process.is_alive()
            finally:
                if process.is_alive():
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid or 0, signal.SIGKILL)
                    process.join()
            cpu_seconds, peak_memory_bytes = used.read_text().split() if used.exists() else ("0", "0")
            return Ended(
                code=process.exitcode or 0,
                timed_out=timed_out,
                seconds=time.monotonic() - began,
                cpu_seconds=float(cpu_seconds),
                peak_memory_bytes=int(peak_memory_bytes),
                output=output.read_text(errors="replace"),
            )


def _work(module: str, arguments: Sequence[str], output: Path, used: Path, memory_bytes: int) -> None:
    # A group of its own, so that all it starts can be ended with it.
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    with output.open("w") as told:
        for stream in (1, 2):
            os.dup2(told.fileno(), stream)
    code = 1
    try:
        code = int(importlib.import_module(module).main(arguments))
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = sum(one.ru_utime + one.ru_stime for one in (own, others))
    used.write_text(f"{seconds} {max(own.ru_maxrss, others.ru_maxrss) * _KIB}")
    sys.exit(code)


def _end_with_parent() -> None:
    """End this process and all it started once who asked for it is gone; the server ends with the last of its forks."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)
