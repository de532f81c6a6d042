"""How a pod ends: its termination message, and the exit code that says whether trying again can help."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from plimsoll_api.names import TERMINATION_FILE
from plimsoll_api.report import EXIT_DONE, EXIT_TRY_AGAIN, MAX_SUMMARY_BYTES, Outcome, Summary
from plimsoll_job.boundary import unforeseen
from plimsoll_job.errors import PlimsollError
from plimsoll_job.parent import end_with_parent, has_parent

MAX_MESSAGE_BYTES = 1_400
#: From the kubelet, and from a keyboard.
STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopSignal(BaseException):
    """The pod was told to stop. No error, so that no handler of errors takes it for the request's fault."""


def run_to_end(work: Callable[[], Summary], termination_file: Path | None) -> int:
    """Do the work, write how it ended, and return the exit code; a signal to stop ends it as something to try again.

    The end of the process that started this one is such a signal.
    """
    for number in STOPPING:
        signal.signal(number, _stop)
    end_with_parent()
    try:
        summary, code = work(), EXIT_DONE
    except PlimsollError as error:
        summary, code = summary_of(error.outcome, error.reason, error.message), error.exit_code
    except StopSignal as stopped:
        message = f"stopped by {stopped}; finished steps are kept, and the next pod goes on from them"
        summary, code = summary_of(Outcome.TRY_AGAIN, "Stopped", message), EXIT_TRY_AGAIN
    # Nobody foresaw it: the trace goes to the log.
    except Exception as error:
        traceback.print_exc()
        told = unforeseen(error)
        summary, code = summary_of(told.outcome, told.reason, told.message), told.exit_code
    # Who started this process reads the summary, and tells it.
    if code != EXIT_DONE and not has_parent():
        print(f"{summary.outcome}: {summary.message}", file=sys.stderr, flush=True)
    _write(summary, termination_file)
    return code


def summary_of(outcome: Outcome, reason: str, message: str) -> Summary:
    """Return a summary whose message is cut to what a termination message holds."""
    cut = message.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
    return Summary(outcome=outcome, reason=reason, message=cut if cut == message else f"{cut} …")


def _write(summary: Summary, termination_file: Path | None) -> None:
    content = summary.canonical_json()
    if len(content) > MAX_SUMMARY_BYTES:
        content = summary_of(summary.outcome, summary.reason, summary.message[:500]).canonical_json()
    # The kubelet makes its file before the container starts; where there is none, nobody reads it.
    target = termination_file or (Path(TERMINATION_FILE) if Path(TERMINATION_FILE).exists() else None)
    if target is not None:
        target.write_bytes(content)


def _stop(number: int, _: FrameType | None) -> None:
    for one in STOPPING:
        signal.signal(one, signal.SIG_IGN)
    raise StopSignal(signal.Signals(number).name)
