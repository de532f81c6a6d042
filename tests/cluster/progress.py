"""Progress lines for people, and waiting with a deadline."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tests.cluster.errors import ClusterError

_started = time.monotonic()


def say(text: str) -> None:
    """Print one line with the seconds since this program began; to stderr, so that stdout stays for results."""
    print(f"{time.monotonic() - _started:7.1f}s  {text}", file=sys.stderr, flush=True)


def wait_until(
    ready: Callable[[], bool], what: str, *, seconds: float, failed: Callable[[], str | None] | None = None
) -> None:
    """Poll `ready` until it holds; raise ClusterError after `seconds`, or at once when `failed` gives a reason."""
    deadline = time.monotonic() + seconds
    pause = 0.05
    while not ready():
        reason = failed() if failed else None
        if reason:
            raise ClusterError(f"{what}: {reason}")
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not so after {seconds:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.3, 0.5)
