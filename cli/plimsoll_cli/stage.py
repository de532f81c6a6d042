"""One stage of `plimsoll run`: a process of its own, whose log is read line by line."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from plimsoll_api.model import digest_of
from plimsoll_api.report import PROGRESS_MARK, REPORT_MARK, Outcome, Progress, Report, Summary
from plimsoll_job.parent import child_arguments

#: How long a stage that was told to stop may take for it.
STOP_SECONDS = 10


@dataclass(frozen=True)
class StageEnd:
    """How a stage ended: its summary, and its report where it made one."""

    summary: Summary
    report: Report | None = None


def run_stage(
    arguments: Sequence[str],
    mounts: Mapping[str, Path],
    on_progress: Callable[[Progress], None],
    on_line: Callable[[str], None],
) -> StageEnd:
    """Run `plimsoll_job` with the arguments and return how it ended; a report is checked by its digest."""
    report_json: str | None = None
    with tempfile.TemporaryDirectory(prefix="plimsoll-") as directory:
        summary_file = Path(directory, "summary.json")
        flags = [f"--mount={claim}={path}" for claim, path in mounts.items()]
        command = [sys.executable, "-m", "plimsoll_job", *arguments, f"--termination-file={summary_file}", *flags]
        with (
            # What it and its children leave among temporary files goes with the directory, however they end.
            child_arguments(TMPDIR=directory) as ending_with_us,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **ending_with_us
            ) as process,
        ):
            assert process.stdout is not None  # noqa: S101 - asked for above
            try:
                for raw in process.stdout:
                    mark, _, content = raw.rstrip("\n").partition(" ")
                    if mark == PROGRESS_MARK:
                        on_progress(Progress.model_validate_json(content))
                    elif mark == REPORT_MARK:
                        report_json = content
                    elif raw.strip():
                        on_line(raw.rstrip("\n"))
            except BaseException:
                _stop(process)
                raise
        summary = _read_summary(summary_file, process.returncode)
    return StageEnd(summary, _checked(report_json, summary))


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _read_summary(file: Path, exit_code: int) -> Summary:
    try:
        return Summary.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return Summary(
            outcome=Outcome.TRY_AGAIN,
            reason="NoSummary",
            message=f"the process ended with exit code {exit_code} and left no summary; its last lines say why",
        )


def _checked(report_json: str | None, summary: Summary) -> Report | None:
    if report_json is None or digest_of(report_json.encode()) != summary.report_digest:
        return None
    return Report.model_validate_json(report_json)
