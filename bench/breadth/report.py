"""The outcomes as a page: what passed, one line a model, and the reason of each failure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from statistics import median

from bench.breadth.outcome import Outcome
from bench.breadth.walk import ALLOWED_ERRORS, CLOSE_ENOUGH, ORDERED_SHARE, TECHNIQUES
from bench.page import markdown_table, shortened

GOAL = 0.95


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the page's lines."""
    models = list(dict.fromkeys(one.model for one in outcomes))
    techniques = [technique for technique in TECHNIQUES if any(one.technique == technique for one in outcomes)]
    by_row = {(one.model, one.technique): one for one in outcomes}
    commits = ", ".join(sorted({one.commit for one in outcomes}))
    failures = [one for one in outcomes if not one.passed]
    found = [
        f"{len(models)} models with random weights, measured at {commits} on {os.cpu_count()} cores.",
        "",
        f"A row passes when {ORDERED_SHARE:.0%} of the parameters went (within {CLOSE_ENOUGH:.0%}; int8: when the file "
        "got smaller) and the artifact, reloaded by ONNX Runtime in a fresh process without torch, answers as the "
        f"module does: off by no more than {ALLOWED_ERRORS['prune']:g} of the size of the answers, and "
        f"{ALLOWED_ERRORS['int8']:g} for int8, whose error stands beside its time.",
        "",
        *markdown_table(
            ["technique", "passed", "share", "goal", "median seconds"], [_technique(outcomes, t) for t in techniques]
        ),
        "",
        *markdown_table(
            ["model", "parameters, M", "image side", *techniques],
            [_model([by_row.get((model, technique)) for technique in techniques]) for model in models],
        ),
        "",
    ]
    if not failures:
        return [*found, "No row failed."]
    return [
        *found,
        *markdown_table(
            ["failed", "technique", "reason"], [[one.model, one.technique, shortened(one.reason)] for one in failures]
        ),
    ]


def share_passed(outcomes: Sequence[Outcome], technique: str) -> float:
    """Return the share of the technique's rows that passed; 0 without rows: what was not walked has not passed."""
    passed = [one.passed for one in outcomes if one.technique == technique]
    return sum(passed) / len(passed) if passed else 0


def _technique(outcomes: Sequence[Outcome], technique: str) -> list[str]:
    rows = [one for one in outcomes if one.technique == technique]
    share = share_passed(outcomes, technique)
    return [
        technique,
        f"{sum(one.passed for one in rows)} of {len(rows)}",
        f"{share:.1%}",
        f"{GOAL:.0%}: {'met' if share >= GOAL else 'missed'}",
        f"{median(one.seconds for one in rows):.0f}" if rows else "-",
    ]


def _model(rows: Sequence[Outcome | None]) -> list[str]:
    known = next(row for row in rows if row is not None)
    return [known.model, f"{known.parameters / 1e6:.1f}", str(known.side or "-"), *map(_cell, rows)]


def _cell(row: Outcome | None) -> str:
    if row is None:
        return "-"
    error = f", {row.error:.2g}" if row.technique == "int8" and row.error is not None else ""
    return f"{'' if row.passed else '**failed**, '}{row.seconds:.0f} s{error}"
