"""Starts the processes that train side by side under torchrun, and tells how the first of them ended.

torchrun by itself ends with 1 whatever its processes end with, and a wrong request would be tried again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from plimsoll_api.report import Outcome, Summary
from plimsoll_job.errors import InternalError, TransientError, UserError
from plimsoll_job.parent import child_arguments


def run_under_torchrun(processes: int, arguments: Sequence[str]) -> Summary:
    """Run the job image with these arguments in so many processes; return, or raise, what the first one tells."""
    with tempfile.TemporaryDirectory() as directory:
        told = Path(directory) / "summary.json"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [*torchrun, "--module", "plimsoll_job", *arguments, f"--termination-file={told}"]
        with child_arguments() as ending_with_us, subprocess.Popen(command, **ending_with_us) as running:
            try:
                code = running.wait()
            finally:
                # It tells its processes; each keeps what it has finished.
                running.terminate()
        try:
            summary = Summary.model_validate_json(told.read_bytes())
        except (OSError, ValueError):
            raise TransientError(
                f"torchrun ended with {code} before the first of {processes} processes told why", reason="Killed"
            ) from None
    match summary.outcome:
        case Outcome.REQUEST_WRONG:
            raise UserError(summary.message, reason=summary.reason)
        case Outcome.INTERNAL_ERROR:
            raise InternalError(summary.message, reason=summary.reason)
        case Outcome.TRY_AGAIN:
            raise TransientError(summary.message, reason=summary.reason)
        case _:
            return summary
