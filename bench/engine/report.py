"""The figures as a page: the goals, then every point of every model."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence

from bench.engine.goals import results
from bench.engine.point import Mean, Point, front, means, plain_of
from bench.page import markdown_table, shortened

HEAD = (
    "contender", "seeds", "size", "parameters", "change of quality, points", "p50, batch 1", "p50, batch 32",
    "wall time", "CPU time", "peak memory",
)  # fmt: skip


def lines(points: Sequence[Point]) -> list[str]:
    """Return the page's lines."""
    all_means = means(points)
    goals = [[f"{one.model}: {one.goal}", "met" if one.met else "missed", one.measured] for one in results(all_means)]
    found = [
        f"Measured at {_all(one.commit for one in points)} on {platform.machine()}, {os.cpu_count()} cores, of which "
        f"every contender got {_all(str(one.threads) for one in points)}.",
        "",
        *markdown_table(["goal", "", "measured"], goals),
    ]
    for model in dict.fromkeys(one.model for one in all_means):
        here = [one for one in all_means if one.model == model]
        found += ["", f"**{model}**", "", *markdown_table(HEAD, [_row(one, here) for one in here])]
    left_out = {(one.model, one.peer, one.variant): one.reason for one in points if one.reason}
    if left_out:
        rows = [[*names, shortened(reason)] for names, reason in left_out.items()]
        found += ["", *markdown_table(["not measured", "contender", "variant", "reason"], rows)]
    return found


def _row(one: Mean, here: Sequence[Mean]) -> list[str]:
    plain = plain_of(here, one.model)
    mark = " ◆" if one in front(here) else ""
    return [
        one.named + mark,
        str(one.seeds),
        f"{one.size:.3f}",
        "-" if one.parameters_gone is None else f"{1 - one.parameters_gone:.3f}",
        f"{one.change_points:+.2f} ± {one.spread_points:.2f}",
        f"{one.latency_1:.2f}",
        f"{one.latency_32:.2f}",
        _over(one.seconds, plain.seconds if plain else None, f"{one.seconds:.0f} s"),
        _over(one.cpu_seconds, plain.cpu_seconds if plain else None, f"{one.cpu_seconds:.0f} s"),
        _over(one.memory_bytes, plain.memory_bytes if plain else None, f"{one.memory_bytes / (1 << 20):.0f} MiB"),
    ]


def _over(value: float, plain: float | None, written: str) -> str:
    return written if not plain else f"{value / plain:.2f} ({written})"


def _all(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))
