"""Locks between invocations."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

from tests.cluster.errors import ClusterError
from tests.cluster.progress import say


@contextlib.contextmanager
def exclusive(what: str, *, seconds: float = 3600) -> Iterator[None]:
    """Hold the machine-wide lock `what`; wait for at most `seconds` while another process holds it."""
    # A name in the abstract socket namespace: it needs no file and goes with the process, however that ends.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        deadline = time.monotonic() + seconds
        told = False
        while True:
            try:
                holder.bind(f"\0plimsoll-test-cluster-{what}")
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise ClusterError(f"another process has held the lock {what!r} for {seconds:.0f} s") from error
                if not told:
                    say(f"waiting for another process that works on {what!r}")
                    told = True
                time.sleep(0.2)
        yield
