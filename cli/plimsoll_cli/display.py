"""What `plimsoll run` shows: a live bar on a terminal, plain lines elsewhere, and a table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from plimsoll_api import figures
from plimsoll_api.artifact import Leftover
from plimsoll_api.machine import Machine
from plimsoll_api.report import Progress, Report
from plimsoll_api.summary import QUALITY_METRICS, summarize
from plimsoll_api.tasks import quality_of
from plimsoll_api.verdict import Judgement, Verdict

COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow"}
LABELS = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R²",
    "cosine_similarity": "cosine to the baseline",
    "neighbour_overlap": "nearest neighbours kept",
    "rank_correlation": "rank correlation of pairs",
    "size": "size on disk (bytes)",
    "parameters": "parameters",
    "macs": "multiply-accumulates",
    "latency_p50": "latency p50 (s)",
    "latency_p95": "latency p95 (s)",
    "throughput": "throughput (samples/s)",
}


#: What a step left as it was is shown from this share of the bytes on, by reasons and kinds of layers.
LARGE_SHARE = 0.05
MOST_NAMES = 3


class Display:
    """A person's view of one run."""

    def __init__(self, job: str, console: Console | None = None, errors: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._errors = errors or Console(highlight=False, stderr=True)
        self._job = job
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(job, total=100, note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def part(self, name: str, low: int, high: int) -> Callable[[Progress], None]:
        """Return what shows the progress of one stage, which spans these percents of the run."""

        def show(progress: Progress) -> None:
            percent = low + (high - low) * progress.percent / 100
            self._bar.update(self._task, completed=percent, description=f"{self._job} {name}", note=_note(progress))
            if not self._console.is_terminal:
                self._console.print(f"{self._job} {name} {percent:3.0f}% {_note(progress)}", soft_wrap=True)

        return show

    def line(self, text: str) -> None:
        """Show a line that the stage printed."""
        self._console.print(text, style="dim", markup=False, soft_wrap=True)

    def error(self, message: str) -> None:
        """Show, where errors are shown, why the run ended early."""
        self._bar.stop()
        self._errors.print(message, style="bold red", markup=False, soft_wrap=True)

    def result(self, report: Report, judgement: Judgement) -> None:
        """Show the figures, the checks and the verdict."""
        self._bar.update(self._task, completed=100, note="done")
        self._bar.stop()
        self._console.print(_figures(report))
        if len(report.steps) > 1:
            self._console.print(_steps(report))
        for line in (*_left(report), *_notes(report)):
            self._console.print(line, style="yellow", markup=False, soft_wrap=True)
        self._console.print(_checks(judgement))
        colour = COLOURS[judgement.verdict]
        self._console.print(f"[bold {colour}]{judgement.verdict}[/]  ", end="")
        self._console.print(judgement.message, markup=False, soft_wrap=True)
        self._console.print(f"machine   {_machine(report.environment)}", markup=False, soft_wrap=True)
        self._console.print(f"memory    {_memory(report)}")
        if report.candidate is not None:
            self._console.print(f"artifact  {report.candidate.artifact.uri}", markup=False, soft_wrap=True)

    def written(self, report_file: Path, before: Path | None) -> None:
        """Show where the report is, and that of an earlier run which lay there before."""
        if before is not None:
            self._console.print(
                f"          {report_file} of an earlier run is now {before}", markup=False, soft_wrap=True
            )
        self._console.print(f"report    {report_file}", markup=False, soft_wrap=True)


def _machine(machine: Machine) -> str:
    """Return what the figures are of."""
    kernels = f" ({', '.join(machine.instruction_sets)})" if machine.instruction_sets and machine.gpu is None else ""
    runtime = f", {machine.runtime}" if machine.runtime else ""
    threads = f"{machine.threads} thread{'s' * (machine.threads > 1)}"
    return f"{machine.gpu or machine.processor}{kernels}, {threads}{runtime}"


def _note(progress: Progress) -> str:
    return f"{progress.stage}: {progress.message}" if progress.message else progress.stage


def _figures(report: Report) -> Table:
    table = Table("metric", "baseline", "candidate", "change", title="Measured on the artifacts, reloaded")
    summary = summarize(report)
    for field, label in LABELS.items():
        shown = getattr(summary, field)
        if shown is not None:
            table.add_row(label, shown.baseline, shown.candidate, shown.change)
    return table


def _memory(report: Report) -> str:
    """Return the most that the stages held, which `resources.limits.memory` must be above."""
    held = {"compress": report.compression_peak_memory_bytes, "evaluate": report.environment.peak_memory_bytes}
    told = [f"{stage} {figures.mebibytes(peak)}" for stage, peak in held.items() if peak is not None]
    return f"{', '.join(told)} at most"


def _steps(report: Report) -> Table:
    table = Table(title="After each step")
    table.add_column("step", no_wrap=True)
    quality = QUALITY_METRICS[quality_of(report.task)[0]]
    for heading in ("size (bytes)", "parameters", "MACs", LABELS[quality], "latency p50, of the baseline's"):
        table.add_column(heading, justify="right")
    for step in report.steps:
        table.add_row(
            step.technique,
            figures.count(step.size_bytes),
            figures.count(step.parameters),
            "unknown" if step.macs is None else figures.count(step.macs),
            _quality(quality, getattr(step, quality)),
            figures.ratio(step.latency.ratio),
        )
    return table


def _left(report: Report) -> Iterator[str]:
    """Yield a sentence for each reason for which a step left a large share of the bytes as it was."""
    for step in report.lineage.steps if report.lineage else ():
        by_reason: dict[tuple[str, str], list[Leftover]] = {}
        for one in step.left:
            by_reason.setdefault((one.kind, one.reason), []).append(one)
        for (kind, reason), rows in by_reason.items():
            share = min(1.0, sum(one.share for one in rows))
            if share > LARGE_SHARE:
                names = ", ".join(one.layer for one in rows[:MOST_NAMES])
                others = f" and {len(rows) - MOST_NAMES} more" if len(rows) > MOST_NAMES else ""
                bytes_left = f"{figures.percent(share, 1)} of the bytes"
                yield f"{step.technique} left {bytes_left} as they were: {names}{others} ({kind}): {reason}."


def _notes(report: Report) -> Iterator[str]:
    """Yield what a person should read of each step, and of the whole."""
    for step in report.lineage.steps if report.lineage else ():
        yield from (f"{step.technique}: {note}" for note in step.notes)
    yield from report.notes


def _quality(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return figures.percent(value) if name == "accuracy" else figures.number(value)


def _checks(judgement: Judgement) -> Table:
    table = Table(title="Gate")
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("why")
    for check in judgement.checks:
        colour = COLOURS[check.verdict]
        table.add_row(escape(check.name), f"[{colour}]{check.verdict}[/]", escape(check.message))
    return table
