"""What can go wrong, by who must act.

PlimsollError
├── UserError          the request must change; trying again cannot help (exit code 64)
├── InternalError      Plimsoll must change; neither of both can help (exit code 70)
└── TransientError     waiting may help; the same request is tried again (exit code 75)

What libraries raise becomes one of these in boundary.py.
"""

from __future__ import annotations

from plimsoll_api.report import EXIT_INTERNAL_ERROR, EXIT_REQUEST_WRONG, EXIT_TRY_AGAIN, Outcome


class PlimsollError(Exception):
    """An end of the run that has a reason and a sentence for people."""

    outcome: Outcome
    exit_code: int

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class UserError(PlimsollError):
    """The request must change. The message starts with the field where there is one."""

    outcome = Outcome.REQUEST_WRONG
    exit_code = EXIT_REQUEST_WRONG

    def __init__(self, message: str, *, reason: str = "RequestWrong") -> None:
        super().__init__(message, reason=reason)


class InternalError(PlimsollError):
    """Plimsoll must change: its own code raised what nobody foresaw."""

    outcome = Outcome.INTERNAL_ERROR
    exit_code = EXIT_INTERNAL_ERROR

    def __init__(self, message: str, *, reason: str = "InternalError") -> None:
        super().__init__(message, reason=reason)


class TransientError(PlimsollError):
    """Waiting may help."""

    outcome = Outcome.TRY_AGAIN
    exit_code = EXIT_TRY_AGAIN

    def __init__(self, message: str, *, reason: str = "TryAgain") -> None:
        super().__init__(message, reason=reason)
