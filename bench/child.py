"""One piece of a benchmark in a process of its own: it may crash, hang or ask for too much memory, and is measured."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plimsoll_job.telemetry import SWITCHES

ROOT = Path(__file__).parents[1]
#: Where the project's packages lie: a child takes them from this checkout, wherever they are installed from.
PACKAGES = (ROOT, *(ROOT / part for part in ("api", "jobimage", "cli", "operator")))
_KIB = 1 << 10


@dataclass(frozen=True)
class Ended:
    """How a child ended; a negative code is the number of the signal that ended it."""

    code: int
    timed_out: bool
    seconds: float
    #: Of the processor, user's and system's: of the child and of all that it waited for.
    cpu_seconds: float
    peak_memory_bytes: int
    output: str

    @property
    def reason(self) -> str:
        """Why the child failed, in a few words: the last line that it wrote where it says so."""
        if self.timed_out:
            return f"not done after {self.seconds:.0f} s"
        last = next((line.strip() for line in reversed(self.output.splitlines()) if line.strip()), "")
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}; {last}" if last else signal.Signals(-self.code).name
        return last or f"exit code {self.code}"


def run(
    command: Sequence[str | Path],
    *,
    limit_seconds: float,
    memory_bytes: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run the command from the checkout's root and wait for it; past the limit it is killed with all it started.

    `memory_bytes` bounds the private memory of each of its processes. The peak is that of the largest of them, or of
    this process where that is larger: the kernel counts from the fork on.
    """
    path = os.pathsep.join(str(package) for package in PACKAGES)
    variables = {**os.environ, **SWITCHES, "PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE", **(environment or {})}
    timed_out = threading.Event()
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip

        def kill() -> None:
            timed_out.set()
            os.killpg(process.pid, signal.SIGKILL)

        if memory_bytes is not None:
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
        timer = threading.Timer(limit_seconds, kill)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Ended(
        code=process.returncode,
        timed_out=timed_out.is_set(),
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_memory_bytes=usage.ru_maxrss * _KIB,
        output=text,
    )
