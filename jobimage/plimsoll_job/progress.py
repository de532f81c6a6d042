"""Progress lines: one JSON log line a stage, for the operator and for the bar of `plimsoll run`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from plimsoll_api.report import PROGRESS_MARK, Progress

MIN_SECONDS_BETWEEN_LINES = 0.5


def print_progress(progress: Progress) -> None:
    """Print one progress line in one write, so that lines of threads never mix."""
    line = f"{PROGRESS_MARK} {progress.canonical_json().decode()}\n"
    sys.stdout.buffer.write(line.encode())
    sys.stdout.buffer.flush()


@dataclass
class Reporter:
    """Tells how far the work is; a part of the work gets a part of the percents."""

    emit: Callable[[Progress], None] = print_progress
    low: float = 0
    high: float = 100
    clock: Callable[[], float] = time.monotonic
    _last: dict[str, float] = field(default_factory=dict)

    def part(self, low: float, high: float) -> Reporter:
        """Return the reporter of a part that spans these fractions of this one."""
        width = self.high - self.low
        return Reporter(self.emit, self.low + low * width, self.low + high * width, self.clock, self._last)

    def report(self, stage: str, fraction: float, message: str = "") -> None:
        """Report the stage at a fraction of this part; lines of one stage that follow too fast are left out."""
        now = self.clock()
        if fraction not in (0, 1) and now - self._last.get(stage, -1e9) < MIN_SECONDS_BETWEEN_LINES:
            return
        self._last[stage] = now
        percent = round(self.low + min(max(fraction, 0), 1) * (self.high - self.low))
        self.emit(Progress(stage=stage, percent=percent, message=message[:200]))
