"""The command: python -m bench.breadth [--families] [--only TEXT] [--jobs N]; it goes on where it was interrupted."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock

from bench.breadth.outcome import Outcome
from bench.breadth.report import GOAL, lines, share_passed
from bench.breadth.subjects import firsts, subjects
from bench.breadth.walk import LATENCY, TECHNIQUES, Limits, walk
from bench.child import ROOT
from bench.page import put_between_markers
from bench.rows import append, commit, read

RESULTS = ROOT / "build" / "breadth.jsonl"


def main() -> int:
    """Walk the models, print the tables; return 0 when each technique reaches its goal."""
    parser = argparse.ArgumentParser(prog="python -m bench.breadth", description=__doc__)
    parser.add_argument("--families", action="store_true", help="one model of each family only")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="models whose name holds the text")
    parser.add_argument("--technique", action="append", choices=(*TECHNIQUES, LATENCY), help="these; all if not given")
    parser.add_argument("--share", type=part, default=(1, 1), metavar="I/N", help="part I of N, for N machines")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    parser.add_argument("--seconds", type=float, default=600, help="limit of one process of a row")
    parser.add_argument("--memory-gib", type=float, default=8, help="limit of one process of a row")
    parser.add_argument("--stop-after", type=float, metavar="SECONDS", help="begin no model after so long")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of rows; delete it to begin anew")
    parser.add_argument("--retry", action="store_true", help="walk the rows again that have failed")
    parser.add_argument("--no-walk", action="store_true", help="tell what the file of rows holds only")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also put the tables into this file")
    options = parser.parse_args()
    listed = subjects()
    first = firsts(listed)
    ordered = {
        one.name: [
            technique
            for technique in options.technique or (*TECHNIQUES, LATENCY)
            if technique != LATENCY or one.name in first
        ]
        for one in listed
        if (not options.families or one.name in first)
        and (not options.only or any(text in one.name for text in options.only))
    }
    if not options.no_walk:
        known = last_of_each(options.results)
        missing = {
            model: left
            for model in in_part(list(ordered), options.share)
            if (left := _missing(ordered[model], model, known, retry=options.retry))
        }
        limits = Limits(options.seconds, int(options.memory_gib * (1 << 30)))
        _walk_all(missing, limits, options.results, options.jobs, options.stop_after)
    known = last_of_each(options.results)
    rows = [row for model, some in ordered.items() for one in some if (row := known.get((model, one))) is not None]
    text = lines(rows, [one for one in listed if one.name in ordered])
    print("\n".join(["", *text]))
    if options.markdown:
        put_between_markers(options.markdown, "bench-breadth", text)
    asked = options.technique or TECHNIQUES
    return 0 if all(share_passed(rows, technique) >= GOAL for technique in asked if technique != LATENCY) else 1


def last_of_each(results: Path) -> dict[tuple[str, str], Outcome]:
    """Return the last outcome of each row of the file."""
    return {(one.model, one.technique): one for one in read(results, Outcome)}


def _missing(techniques: Sequence[str], model: str, known: dict[tuple[str, str], Outcome], *, retry: bool) -> list[str]:
    rows = {technique: known.get((model, technique)) for technique in techniques}
    return [technique for technique, row in rows.items() if row is None or (retry and not row.passed)]


def _walk_all(
    missing: dict[str, list[str]], limits: Limits, results: Path, jobs: int, stop_after: float | None
) -> None:
    """Walk the rows, and keep each at once; an interrupt ends the models that are being walked, and none is begun."""
    began, at, writing, stopped = time.monotonic(), commit(), Lock(), Event()
    count, done = sum(map(len, missing.values())), 0

    def walk_one(model: str) -> None:
        nonlocal done
        if stopped.is_set() or (stop_after is not None and time.monotonic() - began > stop_after):
            return
        for one in walk(model, missing[model], limits, at):
            if stopped.is_set():
                return
            with writing:
                append(results, one)
                done += 1
                told = one.reason or (f"{one.ratio:.2f} of float's time" if one.ratio is not None else "passed")
                print(f"{done} of {count}: {one.model} {one.technique}: {told}, {one.seconds:.0f} s", flush=True)

    if jobs == 1:
        # Here, and not in a thread: an interrupt ends the child at once.
        for model in missing:
            walk_one(model)
        return
    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(walk_one, missing))
        except BaseException:
            stopped.set()
            raise


def part(text: str) -> tuple[int, int]:
    """Return which part of how many a text such as 2/4 names."""
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, such as 2/4, got {text!r}")
    return int(number), int(of)


def in_part(models: Sequence[str], share: tuple[int, int]) -> list[str]:
    """Return the models of this part: every n-th, so that each has some of all families."""
    number, of = share
    return list(models[number - 1 :: of])


if __name__ == "__main__":
    sys.exit(main())
