"""Whether the operator lives and works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

STUCK_SECONDS = 300.0


@dataclass
class Health:
    """What liveness and readiness are answered from."""

    reached: Callable[[], bool] = lambda: False
    """Whether the API server has answered: this operator works, or waits for its turn to."""
    lost: str | None = None
    """Why the operator has to be started anew."""
    _begun: dict[int, tuple[str, float]] = field(default_factory=dict)

    def begin(self, worker: int, what: str) -> None:
        """Note that a worker took up an object."""
        self._begun[worker] = (what, time.monotonic())

    def end(self, worker: int) -> None:
        """Note that the worker is done with it."""
        self._begun.pop(worker, None)

    def problem(self) -> str | None:
        """Say why the operator is not alive, if it is not."""
        if self.lost:
            return self.lost
        now = time.monotonic()
        return next(
            (
                f"{what} has been worked on for too long"
                for what, since in self._begun.values()
                if now - since > STUCK_SECONDS
            ),
            None,
        )

    def unready(self) -> str | None:
        """Say why the operator is not ready, if it is not."""
        return None if self.reached() else "the API server has not answered yet"
