"""Latency and throughput from interleaved times in several processes: figures of each model, intervals of their ratios.

A process is one sample: all of its runs share where weights and code lie in memory. The ratio of each process gives one
number, and Student's interval of their mean holds for few of them too, though some scatter more than others (Ibragimov
and Müller, J Bus Econ Stat 28 (2010) 453); a bootstrap over few is too narrow (Cameron, Gelbach and Miller, Rev Econ
Stat 90 (2008) 414). Kalibera and Jones, ISMM 2013, say why processes have to be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.measured import LEAST_RUNS
from plimsoll_api.report import LatencyFigures, RatioInterval
from plimsoll_api.spec import Metric
from plimsoll_api.statistics import t_score
from plimsoll_job.evaluate.timing import Times

CONFIDENCE = 0.95
PERCENTS: Mapping[Metric, int] = {Metric.LATENCY_P50: 50, Metric.LATENCY_P95: 95, Metric.LATENCY_P99: 99}

Seconds = NDArray[np.float64]


def latency_figures(seconds: Sequence[Seconds], batch_size: int) -> LatencyFigures:
    """Return the figures over the runs of all processes, one array each; of a percentile only what has enough runs."""
    fewest = min(one.size for one in seconds)
    figures = statistics(np.concatenate([one.ravel() for one in seconds]), fewest)
    return LatencyFigures(
        batch_size=batch_size,
        p50_seconds=figures[Metric.LATENCY_P50],
        p95_seconds=figures.get(Metric.LATENCY_P95),
        p99_seconds=figures.get(Metric.LATENCY_P99),
        throughput_per_second=figures[Metric.THROUGHPUT] * batch_size,
        runs=sum(one.size for one in seconds),
        processes=len(seconds),
    )


def ratio_intervals(times: Sequence[Times], batch_size: int) -> list[RatioInterval]:
    """Return candidate over baseline of every timed metric that has enough runs, with a 95% interval over processes."""
    fewest = min(min(one.baseline.size, one.candidate.size) for one in times)
    found = [(statistics(one.baseline, fewest), statistics(one.candidate, fewest)) for one in times]
    intervals = []
    for metric in found[0][0]:
        logs = np.log([candidate[metric] / baseline[metric] for baseline, candidate in found])
        half = t_score((1 + CONFIDENCE) / 2, len(logs) - 1) * float(logs.std(ddof=1)) / len(logs) ** 0.5
        middle = float(logs.mean())
        intervals.append(
            RatioInterval(
                metric=metric,
                batch_size=batch_size,
                ratio=float(np.exp(middle)),
                low=float(np.exp(middle - half)),
                high=float(np.exp(middle + half)),
                processes=len(times),
                rounds=sum(len(one.baseline) for one in times),
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


def statistics(seconds: Seconds, runs: int) -> dict[Metric, float]:
    """Return each timed metric of the runs for which so many are enough: runs a second for throughput.

    A percentile is the smallest time that so many percent of the runs do not exceed.
    """
    ascending = np.sort(seconds, axis=None)
    return {
        **{
            metric: float(ascending[-(-percent * len(ascending) // 100) - 1])
            for metric, percent in PERCENTS.items()
            if runs >= LEAST_RUNS.get(metric, 1)
        },
        Metric.THROUGHPUT: float(len(ascending) / ascending.sum()),
    }
