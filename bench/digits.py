"""The figures of the README, measured: `make bench`, or `python -m bench.digits [--seeds N]`.

For each seed a baseline is trained anew on the digits example's data, and each variant of examples/digits/job.yaml is
carried out by `plimsoll run`, in processes of its own. All figures are candidate over baseline, measured in one run.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plimsoll_api.gate import judge
from plimsoll_api.report import Report
from plimsoll_api.spec import CompressionJobSpec, Metric

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits" / "job.yaml"
HEADER = (
    "| steps | seed | accuracy, points | right→wrong, wrong→right | loss at most, 95% | size | parameters | MACs "
    "| p50, batch 1 | p50, batch 32 | accuracy gate | seconds |"
)


@dataclass(frozen=True)
class Row:
    """What one run measured."""

    variant: str
    seed: int
    report: Report
    accuracy_verdict: str
    loss_bound: str
    seconds: float


def variants(job: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the example's steps, and parts of them: what each technique gives."""
    prune, distill, quantize = job["spec"]["steps"]
    yield "prune 88%, distill, int8 (the example)", [prune, distill, quantize]
    yield "prune 72%, distill", [{"prune": prune["prune"] | {"amount": "72%"}}, distill]
    yield "int8", [quantize]


def measure(variant: str, steps: list[dict[str, Any]], seed: int, claims: Path, job: dict[str, Any]) -> Row:
    """Carry out one variant and return what it measured."""
    job = copy.deepcopy(job)
    job["spec"] |= {"steps": steps, "seed": seed}
    file, report_file = claims / "job.yaml", claims / "report.json"
    file.write_text(yaml.safe_dump(job))
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "plimsoll_cli", "run", str(file), "--report", str(report_file),
         *(f"--mount={claim}={claims / claim}" for claim in ("models", "data"))],
        check=False, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.monotonic() - began
    report = Report.model_validate_json(report_file.read_bytes())
    report_file.unlink()
    judgement = judge(report, CompressionJobSpec.model_validate(job["spec"]).gates)
    bound = judgement.checks[0].message.partition("95% sure that ")[2].partition(",")[0]
    return Row(
        variant, seed, report, judgement.checks[0].verdict, bound.removeprefix("the loss is ") or "unproved", seconds
    )


def accuracy_of(report: Report) -> tuple[float, float]:
    """Return the baseline's accuracy, and the candidate's change in points."""
    flips = report.flips
    if flips is None:
        raise ValueError("the report lacks the flips")
    share = (flips.both_right + flips.right_to_wrong) / flips.samples
    return share, (flips.wrong_to_right - flips.right_to_wrong) / flips.samples * 100


def line(row: Row) -> str:
    """Return a row of the table."""
    baseline, candidate, flips = row.report.baseline, row.report.candidate, row.report.flips
    if baseline is None or candidate is None or flips is None:
        raise ValueError("the report lacks a model")
    accuracy, change = accuracy_of(row.report)
    cells = [
        row.variant,
        str(row.seed),
        f"{accuracy:.2%} {change:+.2f}",
        f"{flips.right_to_wrong}, {flips.wrong_to_right} of {flips.samples}",
        row.loss_bound,
        f"{baseline.size_bytes / candidate.size_bytes:.1f}x smaller",
        f"{candidate.parameters / baseline.parameters:.3f}",
        f"{(candidate.macs or 0) / (baseline.macs or 1):.3f}",
        ratio(row.report, 1),
        ratio(row.report, 32),
        row.accuracy_verdict,
        f"{row.seconds:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def ratio(report: Report, batch_size: int) -> str:
    """Return the ratio of the median latencies with its interval."""
    found = next(one for one in report.ratios if (one.metric, one.batch_size) == (Metric.LATENCY_P50, batch_size))
    return f"{found.ratio:.2f} ({found.low:.2f} to {found.high:.2f})"


def main() -> None:
    """Measure, and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many baselines to train")
    count = parser.parse_args().seeds
    job = yaml.safe_load(EXAMPLE.read_text())
    # Imported here: torch takes seconds, and --help should not.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from plimsoll_job.examples.digits import prepare  # noqa: PLC0415

    print(f"{platform.machine()}, {os.cpu_count()} cores, one thread for latency\n\n{HEADER}")
    print("|" + "---|" * HEADER.count(" | ") + "---|", flush=True)
    rows = []
    for seed in range(count):
        with tempfile.TemporaryDirectory(prefix="plimsoll-bench-") as directory:
            claims = Path(directory)
            prepare(claims / "models", claims / "data", seed)
            for variant, steps in variants(job):
                rows.append(measure(variant, steps, seed, claims, job))
                print(line(rows[-1]), flush=True)
    example = [row.report for row in rows if row.variant.endswith("(the example)")]
    smaller = [one.baseline.size_bytes / one.candidate.size_bytes for one in example if one.baseline and one.candidate]
    points = [accuracy_of(one)[1] for one in example]
    print(
        f"\nThe example over {count} seeds: {statistics.mean(smaller):.1f} times smaller, "
        f"{statistics.mean(points):+.2f} points of accuracy (worst {min(points):+.2f})."
    )


if __name__ == "__main__":
    main()
