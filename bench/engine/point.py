"""What one contender reached on one case, and the mean over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from bench.engine.contenders import OURS, PLAIN


@dataclass(frozen=True)
class Point:
    """One variant of a peer on one model with one seed; `reason` tells why there are no figures."""

    model: str
    seed: int
    peer: str
    variant: str
    commit: str
    threads: int
    reason: str = ""
    seconds: float = 0
    cpu_seconds: float = 0
    peak_memory_bytes: int = 0
    bytes: int = 0
    baseline_bytes: int = 0
    parameters: int | None = None
    baseline_parameters: int | None = None
    quality: float = 0
    baseline_quality: float = 0
    p50_1: float = 0
    baseline_p50_1: float = 0
    p50_32: float = 0
    baseline_p50_32: float = 0


@dataclass(frozen=True)
class Mean:
    """Means over the seeds of one variant, each over its baseline; quality in points of change, with its spread."""

    model: str
    peer: str
    variant: str
    seeds: int
    size: float
    latency_1: float
    latency_32: float
    quality: float
    change_points: float
    spread_points: float
    seconds: float
    cpu_seconds: float
    memory_bytes: float
    parameters_gone: float | None

    @property
    def ours(self) -> bool:
        """Whether it is Plimsoll's."""
        return self.peer == OURS

    @property
    def named(self) -> str:
        """The contender and its variant."""
        return f"{self.peer}: {self.variant}"

    def beats(self, other: Mean) -> bool:
        """Whether it is smaller, faster and better than the other, all three."""
        return self.size < other.size and self.latency_1 < other.latency_1 and self.change_points > other.change_points

    def dominates(self, other: Mean) -> bool:
        """Whether it is in none of the three worse than the other, and in one better."""
        mine, its = ((one.size, one.latency_1, -one.change_points) for one in (self, other))
        return mine != its and all(a <= b for a, b in zip(mine, its, strict=True))


def means(points: Iterable[Point]) -> list[Mean]:
    """Return the mean of each variant over the seeds where it went well."""
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for one in points:
        if not one.reason:
            groups.setdefault((one.model, one.peer, one.variant), []).append(one)
    return [_mean(group) for group in groups.values()]


def front(all_means: Sequence[Mean]) -> list[Mean]:
    """Return those that no other dominates."""
    return [one for one in all_means if not any(other.dominates(one) for other in all_means)]


def plain_of(all_means: Iterable[Mean], model: str) -> Mean | None:
    """Return the plain fine-tuning of the model, if it was measured."""
    return next((one for one in all_means if one.peer == PLAIN and one.model == model), None)


def _mean(group: Sequence[Point]) -> Mean:
    changes = [100 * (one.quality - one.baseline_quality) for one in group]
    gone = [
        1 - one.parameters / one.baseline_parameters
        for one in group
        if one.parameters is not None and one.baseline_parameters
    ]
    return Mean(
        model=group[0].model,
        peer=group[0].peer,
        variant=group[0].variant,
        seeds=len(group),
        size=mean(one.bytes / one.baseline_bytes for one in group),
        latency_1=mean(one.p50_1 / one.baseline_p50_1 for one in group),
        latency_32=mean(one.p50_32 / one.baseline_p50_32 for one in group),
        quality=mean(one.quality for one in group),
        change_points=mean(changes),
        spread_points=stdev(changes) if len(changes) > 1 else 0,
        seconds=mean(one.seconds for one in group),
        cpu_seconds=mean(one.cpu_seconds for one in group),
        memory_bytes=mean(one.peak_memory_bytes for one in group),
        parameters_gone=mean(gone) if gone else None,
    )
