"""The command: python -m bench.breadth [--only TEXT] [--jobs N]; it goes on where an interrupted run stopped."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from bench.breadth.outcome import Outcome
from bench.breadth.report import GOAL, lines, share_passed
from bench.breadth.walk import TECHNIQUES, Limits, walk
from bench.child import ROOT
from bench.page import put_between_markers
from bench.rows import append, commit, read

RESULTS = ROOT / "build" / "breadth.jsonl"


def main() -> int:
    """Walk the models, print the table; return 0 when each technique reaches its goal."""
    parser = argparse.ArgumentParser(prog="python -m bench.breadth", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="models whose name holds the text")
    parser.add_argument("--technique", action="append", choices=TECHNIQUES, help="these techniques; all when not given")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    parser.add_argument("--seconds", type=float, default=600, help="limit of one process of a row")
    parser.add_argument("--memory-gib", type=float, default=8, help="limit of one process of a row")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of rows; delete it to begin anew")
    parser.add_argument("--retry", action="store_true", help="walk the rows again that have failed")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also put the table into this file")
    options = parser.parse_args()
    # Imported here: it imports torch, and --help should not.
    from bench.breadth.subjects import names  # noqa: PLC0415

    models = [name for name in names() if not options.only or any(text in name for text in options.only)]
    techniques = options.technique or list(TECHNIQUES)
    known = last_of_each(options.results)
    limits = Limits(options.seconds, int(options.memory_gib * (1 << 30)))
    at, writing = commit(), Lock()

    def missing(model: str) -> list[str]:
        rows = {technique: known.get((model, technique)) for technique in techniques}
        return [t for t, row in rows.items() if row is None or (options.retry and not row.passed)]

    def walk_one(model: str) -> None:
        for one in walk(model, missing(model), limits, at):
            with writing:
                append(options.results, one)
                print(f"{one.model} {one.technique}: {one.reason or 'passed'}, {one.seconds:.0f} s", flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(walk_one, [model for model in models if missing(model)]))
    known = last_of_each(options.results)
    rows = [known[model, technique] for model in models for technique in techniques if (model, technique) in known]
    text = lines(rows)
    print("\n".join(["", *text]))
    if options.markdown:
        put_between_markers(options.markdown, "bench-breadth", text)
    return 0 if all(share_passed(rows, technique) >= GOAL for technique in techniques) else 1


def last_of_each(results: Path) -> dict[tuple[str, str], Outcome]:
    """Return the last outcome of each row of the file."""
    return {(one.model, one.technique): one for one in read(results, Outcome)}


if __name__ == "__main__":
    sys.exit(main())
