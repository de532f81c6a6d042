"""A part of the work in a process of its own, which ends with this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from plimsoll_job.errors import TransientError, UserError
from plimsoll_job.parent import child_arguments

TIMEOUT_SECONDS = 1_800


def run_child(module: str, arguments: Sequence[str | Path], *, does: str, refusal: str, reason: str) -> None:
    """Run the module to its end; `does` says in words what it does.

    UserError, of this reason and beginning by the refusal, when it ends in an error; TransientError when it was killed,
    mostly for memory, or takes half an hour.
    """
    with child_arguments(OMP_WAIT_POLICY="PASSIVE") as ending_with_us:
        try:
            ended = subprocess.run(
                [sys.executable, "-m", module, *map(str, arguments)],
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT_SECONDS,
                **ending_with_us,
            )
        except subprocess.TimeoutExpired as error:
            raise TransientError(
                f"the process that {does} was not done in {TIMEOUT_SECONDS} s", reason="Slow"
            ) from error
    if ended.returncode < 0:
        # What it works on may be as good as any.
        raise TransientError(f"the process that {does} was ended by signal {-ended.returncode}", reason="Killed")
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["no word of why"]
        raise UserError(f"{refusal}: {last[0]}", reason=reason)
