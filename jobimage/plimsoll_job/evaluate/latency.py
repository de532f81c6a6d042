"""Latency and throughput from interleaved times: figures of each model, and intervals of their ratios."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.report import LatencyFigures, RatioInterval
from plimsoll_api.spec import Metric
from plimsoll_job.evaluate.timing import Times

RESAMPLES = 1_000
CONFIDENCE = 0.95
#: Resamples times runs that are summed up at once: 64 MiB.
MAX_CELLS = 8_000_000
PERCENTS: Mapping[Metric, int] = {Metric.LATENCY_P50: 50, Metric.LATENCY_P95: 95, Metric.LATENCY_P99: 99}

Seconds = NDArray[np.float64]


def latency_figures(seconds: Seconds, batch_size: int) -> LatencyFigures:
    """Return the figures over the runs of all rounds."""
    once = np.ones((1, len(seconds)), dtype=np.int32)
    figures = {metric: float(values[0]) for metric, values in _statistics(seconds, once).items()}
    return LatencyFigures(
        batch_size=batch_size,
        p50_seconds=figures[Metric.LATENCY_P50],
        p95_seconds=figures[Metric.LATENCY_P95],
        p99_seconds=figures[Metric.LATENCY_P99],
        throughput_per_second=figures[Metric.THROUGHPUT] * batch_size,
        runs=seconds.size,
    )


def ratio_intervals(times: Times, batch_size: int, seed: int) -> list[RatioInterval]:
    """Return candidate over baseline of every timed metric, with 95% percentile intervals of a bootstrap over rounds.

    Rounds are resampled, not runs: runs of one round share what the machine did then, and both models of a round go
    together.
    """
    rounds = len(times.baseline)
    drawn = np.random.default_rng(seed).multinomial(rounds, np.full(rounds, 1 / rounds), size=RESAMPLES)
    # The first row takes every round once: what was measured, before it is resampled.
    counts = np.vstack([np.ones(rounds, dtype=np.int32), drawn.astype(np.int32)])
    baseline, candidate = _statistics(times.baseline, counts), _statistics(times.candidate, counts)
    intervals = []
    for metric in baseline:
        ratios = candidate[metric] / baseline[metric]
        low, high = np.quantile(ratios[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        intervals.append(
            RatioInterval(
                metric=metric,
                batch_size=batch_size,
                ratio=float(ratios[0]),
                low=float(low),
                high=float(high),
                rounds=rounds,
            )
        )
    return intervals


def slower_notes(ratios: Iterable[RatioInterval]) -> list[str]:
    """Return a sentence for each batch size at which the candidate's median is slower, by the whole of its interval."""
    return [
        f"The candidate is slower than the baseline at batch size {one.batch_size}: its median latency is "
        f"{one.ratio:.2f} times that of the baseline, {one.low:.2f} to {one.high:.2f} with 95% confidence."
        for one in ratios
        if one.metric == Metric.LATENCY_P50 and one.low > 1
    ]


def _statistics(seconds: Seconds, counts: NDArray[np.int32]) -> dict[Metric, Seconds]:
    """Return each timed metric for every row of `counts`, which says how often each round is taken.

    A percentile is the smallest time that so many percent of the taken runs do not exceed. The runs are sorted once,
    and the counts summed up along them: sorting each resample anew took ten times as long. Throughput is in runs a
    second here; samples a second have the same ratio.
    """
    order = np.argsort(seconds, axis=None, kind="stable")
    ascending, round_of = seconds.ravel()[order], order // seconds.shape[1]
    rows_at_once = max(1, MAX_CELLS // seconds.size)
    statistics = [
        _percentiles(ascending, round_of, counts[start : start + rows_at_once])
        for start in range(0, len(counts), rows_at_once)
    ]
    taken_runs = counts.sum(axis=1) * seconds.shape[1]
    return {
        **{metric: np.concatenate([part[metric] for part in statistics]) for metric in PERCENTS},
        Metric.THROUGHPUT: taken_runs / (counts @ seconds.sum(axis=1)),
    }


def _percentiles(ascending: Seconds, round_of: NDArray[np.intp], counts: NDArray[np.int32]) -> dict[Metric, Seconds]:
    taken = np.cumsum(counts[:, round_of], axis=1, dtype=np.int64)
    return {
        metric: ascending[(taken * 100 >= percent * taken[:, -1:]).argmax(axis=1)]
        for metric, percent in PERCENTS.items()
    }
