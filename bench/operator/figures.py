"""What one run of one operator measured."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.operator.audit import Milestones
from bench.operator.load import Observed
from bench.operator.usage import Usage

#: Name of a stretch of a job's way, and the two milestones that bound it.
STRETCHES = (
    ("create → plan", "job", "plan"),
    ("plan → compress Job", "plan", "compress"),
    ("compress Job → evaluate Job", "compress", "evaluate"),
    ("evaluate Job → end", "evaluate", "end"),
    ("create → end", "job", "end"),
)


@dataclass(frozen=True)
class Quantiles:
    """Median and 99th percentile, in seconds."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Figures:
    """The figures of one operator."""

    name: str
    jobs: int
    ended: int
    phases: Counter[str]
    seconds: float
    startup_seconds: float
    startup_cpu_seconds: float
    usage: Usage
    writes: Counter[str]
    other_writes: Counter[str]
    """Outside the jobs' namespace, such as leases."""
    all_writes: float
    """Of everyone."""
    stretches: Mapping[str, Quantiles]
    control_plane: Mapping[str, Usage]

    @property
    def jobs_per_second(self) -> float:
        """From the first request to the last end."""
        return self.ended / self.seconds if self.seconds else 0.0

    @property
    def cpu_ms_per_job(self) -> float:
        """Of the operator and its children, without its start."""
        return 1000 * self.usage.cpu_seconds / self.jobs

    @property
    def writes_per_job(self) -> float:
        """Of the operator, refused ones included."""
        return self.writes.total() / self.jobs


def stretches(milestones: Mapping[str, Milestones], observed: Observed) -> dict[str, Quantiles]:
    """Return the quantiles of each stretch over the jobs that went through it."""
    result: dict[str, Quantiles] = {}
    for name, first, last in STRETCHES:
        spans = []
        for job, times in milestones.items():
            begin = getattr(times, first)
            end = observed.ended.get(job) if last == "end" else getattr(times, last)
            if begin is not None and end is not None:
                spans.append(end - begin)
        if spans:
            result[name] = Quantiles(quantile(spans, 0.5), quantile(spans, 0.99))
    return result


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
