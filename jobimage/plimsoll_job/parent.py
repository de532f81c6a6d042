"""Processes that end with the one that started them, however that ends.

A process with this variable holds the reading end of a pipe as its standard input. Nothing is ever written there: the
kernel closes the other end when whoever started it is gone. Standard input is inherited, so that this holds for the
processes that torchrun starts, too. Pods have no such process above them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

VARIABLE = "PLIMSOLL_ENDS_WITH_STDIN"
#: How long a process may take to end by itself once nobody waits for it any more.
GRACE_SECONDS = 30


@contextlib.contextmanager
def child_arguments(**environment: str) -> Iterator[dict[str, Any]]:
    """Yield what `subprocess` needs so that a process with these variables too ends with this one.

    It is told to end when the context does.
    """
    reading, writing = os.pipe()
    try:
        yield {"stdin": reading, "env": {**os.environ, VARIABLE: "1", **environment}}
    finally:
        os.close(reading)
        os.close(writing)


def has_parent() -> bool:
    """Return whether a process of ours started this one, and tells people how it ended."""
    return VARIABLE in os.environ


def end_with_parent() -> None:
    """Have this process sent SIGTERM, and killed where that does not end it, when the one that started it is gone."""
    if has_parent():
        threading.Thread(target=_wait, args=(sys.stdin.fileno(),), daemon=True).start()


def _wait(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
