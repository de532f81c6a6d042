"""A part of the work in a process of its own, which ends with this one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from plimsoll_job.boundary import check_passing
from plimsoll_job.errors import TransientError, UserError
from plimsoll_job.parent import child_arguments


def run_child(module: str, arguments: Sequence[str | Path], *, does: str, refusal: str, reason: str) -> None:
    """Run the module to its end, however long it takes; `does` says in words what it does.

    A limit would not tell a large model from one that hangs, and a second try takes as long. UserError, of this reason
    and beginning by the refusal, when it ends in an error; TransientError when it was killed, mostly for memory, or
    ends in an error that waiting mends.
    """
    with child_arguments(OMP_WAIT_POLICY="PASSIVE") as ending_with_us:
        ended = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            **ending_with_us,
        )
    if ended.returncode < 0:
        # What it works on may be as good as any.
        raise TransientError(f"the process that {does} was ended by signal {-ended.returncode}", reason="Killed")
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["no word of why"]
        check_passing(_raised(last[0]))
        raise UserError(f"{refusal}: {last[0]}", reason=reason)


def _raised(line: str) -> Exception:
    """Return the error that the last line of a trace tells of, as far as waiting could mend it."""
    if number := re.search(r"\[Errno (\d+)\]", line):
        return OSError(int(number[1]), line)
    # NumPy's own has a longer name.
    return MemoryError(line) if "MemoryError" in line else Exception(line)
