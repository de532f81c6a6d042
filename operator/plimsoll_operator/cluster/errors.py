"""What the API server refuses, by who must act.

ClusterError
├── NotFoundError          404: it is not there (any more)
├── AlreadyExistsError     409 on create: someone made it before
├── ConflictError          409 on a change: what was read is no longer so; read again
├── GoneError              410: the watch is too old; list again
├── RefusedError           other 4xx: the same request will be refused again
└── UnavailableError       429, 5xx, timeouts, broken connections: waiting may help
"""

from __future__ import annotations

from typing import Any


class ClusterError(Exception):
    """A request that the API server did not carry out."""

    def __init__(self, message: str, *, status: int = 0, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class NotFoundError(ClusterError):
    """The object is not there."""


class AlreadyExistsError(ClusterError):
    """An object of this name was made before."""


class ConflictError(ClusterError):
    """The object changed since it was read."""


class GoneError(ClusterError):
    """The resource version is too old to watch from."""


class RefusedError(ClusterError):
    """The request is wrong or not allowed."""


class UnavailableError(ClusterError):
    """The API server cannot answer now."""


def error_of(status: int, body: dict[str, Any], retry_after: str | None) -> ClusterError:
    """Return the error that the answer (a Status object, or nothing) stands for."""
    message = str(body.get("message") or f"the API server answered {status}")
    reason = body.get("reason")
    kind: type[ClusterError] = RefusedError
    if status == 404:
        kind = NotFoundError
    elif status == 409:
        kind = AlreadyExistsError if reason == "AlreadyExists" else ConflictError
    elif status == 410 or reason == "Expired":
        kind = GoneError
    elif status == 429 or status >= 500:
        kind = UnavailableError
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    return kind(message, status=status, retry_after_seconds=seconds)
