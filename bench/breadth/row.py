"""One technique on one model, by the job image's own way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.breadth.subjects import plan_parts

from plimsoll_api.plan import Plan
from plimsoll_job.compress import compress
from plimsoll_job.errors import PlimsollError
from plimsoll_job.figures import count_parameters
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.observe import tensors_of
from plimsoll_job.techniques.shape import Applied, Bench, Candidate
from plimsoll_job.techniques.table import TECHNIQUES

STEPS: dict[str, dict[str, Any]] = {
    "prune": {"prune": {"criterion": "Activation", "granularity": "Structured", "amount": "30%"}},
    "factorize": {"factorize": {"method": "Svd", "amount": "30%"}},
    "int8": {"quantize": {"scheme": "Int8Static"}},
}
#: The reload asks for this many answers.
ASKED = 5


def plan_of(name: str, technique: str) -> Plan:
    """Return the plan; the claim `work` holds all that it names."""
    return Plan.model_validate({
        "image": "",
        **plan_parts(name),
        "steps": [STEPS[technique]],
        "seed": 0,
        "output": {"uri": f"pvc://work/{technique}"},
    })  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """One use of a technique: what came in, what came out, and the samples that it was given."""

    before: Candidate
    after: Candidate
    bench: Bench


@contextmanager
def watched(technique: str) -> Iterator[list[Seen]]:
    """Give a list that gets each use of the technique: compress hands out the artifact only."""
    seen: list[Seen] = []
    apply = TECHNIQUES[technique]

    def watching(settings: Any, candidate: Candidate, bench: Bench) -> Applied:
        applied = apply(settings, candidate, bench)
        seen.append(Seen(candidate, applied.candidate, bench))
        return applied

    TECHNIQUES[technique] = watching
    try:
        yield seen
    finally:
        TECHNIQUES[technique] = apply


def carry_out(name: str, technique: str, folder: Path) -> float:
    """Compress, keep what the module answers beside the artifact, and return the share of parameters that went."""
    with watched(next(iter(STEPS[technique]))) as seen:
        summary = compress(plan_of(name, technique), Store(claims=folder.parent), Reporter(emit=lambda _: None))
    assert summary.candidate is not None and summary.baseline is not None  # noqa: S101, PT018 — it came to its end
    (use,) = seen
    arrays: dict[str, Any] = use.bench.need_calibration().rows(slice(ASKED))
    with torch.no_grad():
        arrays["answers"] = use.after.module(*tensors_of(arrays)).numpy()
    np.savez(folder / technique / "expected.npz", **arrays)
    (folder / technique / "artifact.json").write_text(summary.candidate.model_dump_json())
    (folder / technique / "baseline.json").write_text(summary.baseline.model_dump_json())
    return 1 - count_parameters(use.after.module) / count_parameters(use.before.module)


def main(arguments: Sequence[str]) -> int:
    """MODEL TECHNIQUE FOLDER: print what went; return 1 with the reason on the last line if the job image refused."""
    name, technique, folder = arguments
    try:
        share = carry_out(name, technique, Path(folder))
    except PlimsollError as error:
        print(error.message.splitlines()[0])
        return 1
    print(json.dumps({"share": share}))
    return 0
