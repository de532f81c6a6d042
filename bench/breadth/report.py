"""The outcomes as a page: what passed, one line a family, the reason of each failure, and what was not walked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from bench.breadth.outcome import Outcome
from bench.breadth.subjects import Subject
from bench.breadth.walk import ALLOWED_ERRORS, CLOSE_ENOUGH, LATENCY, ORDERED_SHARE, TECHNIQUES
from bench.page import markdown_table, shortened

GOAL = 0.95


def lines(outcomes: Sequence[Outcome], listed: Sequence[Subject]) -> list[str]:
    """Return the page's lines: what was walked of the models that are listed."""
    walked = {one.model for one in outcomes}
    techniques = [technique for technique in TECHNIQUES if any(one.technique == technique for one in outcomes)]
    commits = Counter(one.commit for one in outcomes)
    failures = [one for one in outcomes if not one.passed]
    found = [
        f"{len(walked)} of {len(listed)} models were walked, with random weights, on {os.cpu_count()} cores; rows by "
        f"commit: {', '.join(f'{commit} {count}' for commit, count in commits.items())}.",
        "",
        f"A row passes when {ORDERED_SHARE:.0%} of the parameters went (within {CLOSE_ENOUGH:.0%}; int8: when the file "
        "got smaller) and the artifact, reloaded by ONNX Runtime in a fresh process without torch, answers as the "
        f"module does: off by no more than {ALLOWED_ERRORS['prune']:g} of the size of the answers, and "
        f"{ALLOWED_ERRORS['int8']:g} for int8.",
        "",
        *markdown_table(
            ["technique", "passed", "share", "goal", "median seconds"], [_technique(outcomes, t) for t in techniques]
        ),
        "",
        *_latency(outcomes),
        *_families(outcomes, listed, techniques),
        "",
    ]
    if failures:
        rows = [[one.model, one.technique, shortened(one.reason)] for one in failures]
        return [*found, *markdown_table(["failed", "technique", "reason"], rows)]
    return [*found, "No row failed."]


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


def _latency(outcomes: Iterable[Outcome]) -> list[str]:
    timed = [one for one in outcomes if one.technique == LATENCY and one.ratio is not None]
    if not timed:
        return []
    slower = sum(one.low is not None and one.low > 1 for one in timed)
    faster = sum(one.high is not None and one.high < 1 for one in timed)
    return [
        f"int8 was timed beside float for one model of each of {len(timed)} families, at batch size 1 on one thread: "
        f"it is faster by the whole of the 95% interval for {faster / len(timed):.0%}, slower for "
        f"{slower / len(timed):.0%} ({slower}), and {median(one.ratio for one in timed if one.ratio):.2f} times the "
        "float's median in the middle of them.",
        "",
    ]


def _families(outcomes: Sequence[Outcome], listed: Sequence[Subject], techniques: Sequence[str]) -> list[str]:
    families: dict[str, list[str]] = {}
    for subject in listed:
        families.setdefault(subject.family, []).append(subject.name)
    walked = {one.model for one in outcomes}
    rows = []
    for family, names in families.items():
        of_family = [one for one in outcomes if one.model in set(names)]
        if of_family:
            cells = [_passed(one for one in of_family if one.technique == technique) for technique in techniques]
            rows.append([family, f"{len(walked & set(names))} of {len(names)}", *cells, _ratio(of_family)])
    unseen = [f"{family} ({len(names)})" for family, names in families.items() if not walked & set(names)]
    return [
        *markdown_table(["family", "walked", *techniques, "int8 over float, p50"], rows),
        *(["", f"Of these families no model was walked: {', '.join(unseen)}."] if unseen else []),
    ]


def _passed(rows: Iterable[Outcome]) -> str:
    found = [one.passed for one in rows]
    return f"{sum(found)} of {len(found)}" if found else "-"


def _ratio(rows: Iterable[Outcome]) -> str:
    return next(
        (
            f"{one.ratio:.2f} ({one.low:.2f} to {one.high:.2f}), {one.model.rpartition('/')[2]}, side {one.side}"
            for one in rows
            if one.technique == LATENCY and one.ratio is not None
        ),
        "-",
    )
