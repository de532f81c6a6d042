"""Times of two models, interleaved, so that what the machine does meanwhile happens to both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: One block of runs of one model lasts about this long, so that rounds are many and short against the machine's moods.
BLOCK_SECONDS = 0.004
MIN_RUNS, MAX_RUNS = 3, 60
WARM_UP_WINDOW = 15
WARM_UP_TOLERANCE = 0.05
MAX_WARM_UP_SECONDS = 1.0

Clock = Callable[[], float]


@dataclass(frozen=True)
class Times:
    """Seconds of every run: one row a round, one column a run."""

    baseline: NDArray[np.float64]
    candidate: NDArray[np.float64]


def measure_times(
    baseline: Callable[[], object], candidate: Callable[[], object], *, rounds: int, clock: Clock = time.perf_counter
) -> Times:
    """Return the times of both, measured in rounds of baseline, candidate, candidate, baseline."""
    runs = max(runs_per_block(warm_up(call, clock)) for call in (baseline, candidate))
    rows = []
    for _ in range(rounds):
        first = _block(baseline, runs, clock)
        second = _block(candidate, runs, clock)
        third = _block(candidate, runs, clock)
        rows.append(([*first, *_block(baseline, runs, clock)], [*second, *third]))
    return Times(np.array([row[0] for row in rows]), np.array([row[1] for row in rows]))


def warm_up(call: Callable[[], object], clock: Clock) -> float:
    """Run until the median of a window is within 5% of the window before, a second at most; return the median.

    A window of a slow model has fewer runs: with all of them, one that takes seconds would warm up for minutes.
    """
    deadline = clock() + MAX_WARM_UP_SECONDS
    (first,) = _block(call, 1, clock)
    runs = int(np.clip(MAX_WARM_UP_SECONDS / 2 / max(first, 1e-9), 1, WARM_UP_WINDOW))
    before = float(np.median(_block(call, runs, clock)))
    while True:
        median = float(np.median(_block(call, runs, clock)))
        if abs(median - before) <= WARM_UP_TOLERANCE * before or clock() > deadline:
            return median
        before = median


def runs_per_block(seconds: float) -> int:
    """Return how many runs make a block."""
    return int(np.clip(BLOCK_SECONDS / max(seconds, 1e-9), MIN_RUNS, MAX_RUNS))


def _block(call: Callable[[], object], runs: int, clock: Clock) -> list[float]:
    times = []
    for _ in range(runs):
        start = clock()
        call()
        times.append(clock() - start)
    return times
