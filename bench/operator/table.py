"""The figures as one table, for the terminal and for the documentation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.operator.figures import STRETCHES, Figures
from bench.page import markdown_table, put_between_markers

_MIB = 1 << 20

Row = list[str]


def rows(figures: Sequence[Figures]) -> list[Row]:
    """Return the table's rows, the head first; with two operators the last column is the first over the second."""
    ours, peer = figures[0], figures[1] if len(figures) > 1 else None
    head = ["", *(one.name for one in figures)] + ([f"{ours.name} / {peer.name}"] if peer else [])
    table = [head]
    for label, read, decimals in _lines():
        numbers = [read(one) for one in figures]
        cells = ["-" if number is None else f"{number:,.{decimals}f}" for number in numbers]
        if peer:
            first, second = numbers
            cells.append(f"{first / second:.2f}" if first is not None and second else "-")
        table.append([label, *cells])
    return table


def text(figures: Sequence[Figures]) -> str:
    """Return the table and what each operator wrote, for the terminal."""
    table = rows(figures)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]))
    for one in figures:
        lines += ["", f"{one.name}: {dict(one.phases)}", f"  writes a job: {_kinds(one)}"]
        if one.other_writes:
            lines.append(f"  other writes in all: {dict(one.other_writes)}")
    return "\n".join(lines)


def write_markdown(figures: Sequence[Figures], file: Path) -> None:
    """Put the table into the file between its two markers; append them when the file has none."""
    put_between_markers(file, "bench-operator", _markdown(figures))


def _markdown(figures: Sequence[Figures]) -> list[str]:
    head, *body = rows(figures)
    lines = [
        f"{figures[0].jobs:,} CompressionJobs created at once; API server, etcd, controllers, scheduler, kwok and the "
        f"operator on the same {os.cpu_count()} cores; a fresh control plane for each operator.",
        "",
        *markdown_table(head, body),
        "",
    ]
    return lines + [f"Writes a job of {one.name}: {_kinds(one)}." for one in figures]


def _kinds(one: Figures) -> str:
    return ", ".join(f"{count / one.jobs:.2f} {kind}" for kind, count in sorted(one.writes.items()))


def _lines() -> list[tuple[str, Callable[[Figures], float | None], int]]:
    lines: list[tuple[str, Callable[[Figures], float | None], int]] = [
        ("jobs", lambda one: one.jobs, 0),
        ("ended", lambda one: one.ended, 0),
        ("first apply → last end, s", lambda one: one.seconds, 1),
        ("jobs/s", lambda one: one.jobs_per_second, 1),
        ("operator CPU a job, ms", lambda one: one.cpu_ms_per_job, 1),
        ("operator peak RSS, MB", lambda one: one.usage.peak_rss_bytes / _MIB, 0),
        ("operator writes a job", lambda one: one.writes_per_job, 2),
        ("all writes a job", lambda one: one.all_writes / one.jobs, 1),
        ("operator start, s", lambda one: one.startup_seconds, 1),
        ("operator start, CPU s", lambda one: one.startup_cpu_seconds, 1),
    ]
    for name, _, _ in STRETCHES:
        lines.append((f"{name} p50, s", _stretch(name, "p50"), 2))
        lines.append((f"{name} p99, s", _stretch(name, "p99"), 2))
    for program in ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "kwok"):
        lines.append((f"{program} CPU a job, ms", _program(program), 1))
    return lines


def _stretch(name: str, share: str) -> Callable[[Figures], float | None]:
    return lambda one: getattr(one.stretches.get(name), share, None)


def _program(name: str) -> Callable[[Figures], float | None]:
    return lambda one: 1000 * one.control_plane[name].cpu_seconds / one.jobs
