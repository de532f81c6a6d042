"""One model through all techniques, each row in processes of its own."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.breadth.outcome import Outcome
from bench.child import Ended, run
from bench.forked import Forks

TECHNIQUES = ("prune", "factorize", "int8")
#: int8 once more, on images as large as the model wants them, timed beside float: of one model of each family.
LATENCY = "latency"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
#: What was ordered is met when the share of parameters that went is this near to it.
ORDERED_SHARE, CLOSE_ENOUGH = 0.3, 0.05
#: How far the reloaded answers may be from the module's, over the size of the answers: another order of sums. Random
#: weights on noise hand the rounding of int8 on from layer to layer as no trained model does: there it is only to be
#: less than the answers themselves.
ALLOWED_ERRORS = {"prune": 1e-3, "factorize": 1e-3, "int8": 1.0}


@dataclass(frozen=True)
class Limits:
    """What one process of a row may use."""

    seconds: float
    memory_bytes: int


def walk(model: str, techniques: Sequence[str], limits: Limits, commit: str) -> Iterator[Outcome]:
    """Yield what became of each technique on the model; nothing that goes wrong is raised."""
    small = [technique for technique in techniques if technique != LATENCY]
    if small:
        yield from _walk(model, small, limits, commit)
    if LATENCY in techniques:
        yield from _walk(model, [LATENCY], limits, commit)


def _walk(model: str, techniques: Sequence[str], limits: Limits, commit: str) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory(prefix="plimsoll-breadth-") as directory:
        folder = Path(directory, "work")
        folder.mkdir()
        prepared = _fork(
            "bench.breadth.prepare", [model, str(folder), *(["own"] if LATENCY in techniques else [])], limits
        )
        if prepared.code != 0:
            for technique in techniques:
                reason = f"the model cannot be made: {prepared.reason}"
                yield Outcome(model, technique, commit, reason, prepared.seconds, prepared.peak_memory_bytes)
            return
        made = _last_line(prepared)
        for technique in techniques:
            known = {"parameters": made["parameters"], "side": made["side"]}
            row = _fork(
                "bench.breadth.row", [model, "int8" if technique == LATENCY else technique, str(folder)], limits
            )
            reason, seconds = row.reason, row.seconds
            if row.code == 0:
                known["share"] = float(_last_line(row)["share"])
                proved = _time(folder, limits) if technique == LATENCY else reload(technique, folder, limits)
                seconds += proved.seconds
                if proved.code == 0:
                    known |= _last_line(proved)
                    reason = "" if technique == LATENCY else reason_of(technique, known["share"], known["error"])
                else:
                    reason = f"{'timing' if technique == LATENCY else 'reload'}: {proved.reason}"
            yield Outcome(model, technique, commit, reason, seconds, row.peak_memory_bytes, **known)


def reload(technique: str, folder: Path, limits: Limits) -> Ended:
    """Open in a fresh process what the technique made; it prints how far the answers are from the module's."""
    return _run("reload", [technique, folder], limits)


def _time(folder: Path, limits: Limits) -> Ended:
    return _run("speed", ["int8", folder], limits)


def reason_of(technique: str, share: float, error: float) -> str:
    """Return why what was made is not what was ordered; nothing when it is."""
    if technique != "int8" and abs(share - ORDERED_SHARE) > CLOSE_ENOUGH:
        return f"{share:.0%} of the parameters went, {ORDERED_SHARE:.0%} were ordered"
    if not error <= ALLOWED_ERRORS[technique]:
        return f"reloaded, its answers are wrong by {error:.2g} of their size"
    return ""


def _last_line(ended: Ended) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ended.output.splitlines()[-1])
    return found


def _run(module: str, arguments: Sequence[str | Path], limits: Limits) -> Ended:
    return run(
        [sys.executable, "-m", f"bench.breadth.{module}", *arguments],
        limit_seconds=limits.seconds,
        memory_bytes=limits.memory_bytes,
        environment=ONE_THREAD,
    )


def _fork(call: str, arguments: Sequence[str], limits: Limits) -> Ended:
    return forks().run(call, arguments, limit_seconds=limits.seconds, memory_bytes=limits.memory_bytes)


@cache
def forks() -> Forks:
    """Return the processes that make models and carry techniques out: of them the libraries are most of the time."""
    return Forks(["bench.breadth.prepare", "bench.breadth.row", "timm", "torchvision"], ONE_THREAD)
