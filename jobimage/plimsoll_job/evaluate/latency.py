"""Latency and throughput from interleaved times: figures of each model, and intervals of their ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.report import LatencyFigures, RatioInterval
from plimsoll_api.spec import Metric
from plimsoll_job.evaluate.timing import Times

RESAMPLES = 1_000
CONFIDENCE = 0.95

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _percentile(percent: float) -> Statistic:
    return lambda seconds: np.percentile(seconds, percent, axis=-1)


def _speed(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return runs a second; samples a second has the same ratio."""
    speed: NDArray[np.float64] = 1 / seconds.mean(axis=-1)
    return speed


STATISTICS: Mapping[Metric, Statistic] = {
    Metric.LATENCY_P50: _percentile(50),
    Metric.LATENCY_P95: _percentile(95),
    Metric.LATENCY_P99: _percentile(99),
    Metric.THROUGHPUT: _speed,
}


def latency_figures(seconds: NDArray[np.float64], batch_size: int) -> LatencyFigures:
    """Return the figures over the runs of all rounds."""
    flat = seconds.ravel()
    return LatencyFigures(
        batch_size=batch_size,
        p50_seconds=float(STATISTICS[Metric.LATENCY_P50](flat)),
        p95_seconds=float(STATISTICS[Metric.LATENCY_P95](flat)),
        p99_seconds=float(STATISTICS[Metric.LATENCY_P99](flat)),
        throughput_per_second=float(_speed(flat)) * batch_size,
        runs=flat.size,
    )


def ratio_intervals(times: Times, batch_size: int, seed: int) -> list[RatioInterval]:
    """Return candidate over baseline of every timed metric, with 95% percentile intervals of a bootstrap over rounds.

    Rounds are resampled, not runs: runs of one round share what the machine did then, and both models of a round go
    together.
    """
    rounds = len(times.baseline)
    draws = np.random.default_rng(seed).integers(0, rounds, size=(RESAMPLES, rounds))
    intervals = []
    for metric, statistic in STATISTICS.items():
        ratios = np.array([_ratio(statistic, times.baseline[draw], times.candidate[draw]) for draw in draws])
        low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        intervals.append(
            RatioInterval(
                metric=metric,
                batch_size=batch_size,
                ratio=_ratio(statistic, times.baseline, times.candidate),
                low=float(low),
                high=float(high),
                rounds=rounds,
            )
        )
    return intervals


def _ratio(statistic: Statistic, baseline: NDArray[np.float64], candidate: NDArray[np.float64]) -> float:
    return float(statistic(candidate.ravel()) / statistic(baseline.ravel()))
