"""What must be so after a step, and how it is read from what the cluster and kubectl say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.e2e.kube import Object


@dataclass(frozen=True)
class Claim:
    """Something that must be so after a step, and what was seen."""

    text: str
    holds: bool
    observed: str


def end_of(job: Object) -> str:
    """Return Complete or Failed, or nothing while the Job runs."""
    kinds = [c["type"] for c in job.get("status", {}).get("conditions", []) if c["status"] == "True"]
    return next((kind for kind in kinds if kind in ("Complete", "Failed")), "")


def is_reevaluated(release: Object) -> bool:
    """Say whether the re-evaluation has a verdict and, where it failed, what follows was decided too."""
    status = release.get("status", {})
    verdict = status.get("reevaluation", {}).get("verdict")
    return bool(verdict) and (verdict != "Fail" or status.get("currentRevision") != 2)


def points_at(release: Object, revision: int, text: str) -> Claim:
    """Claim that the release serves this revision."""
    status = release.get("status", {})
    seen = f"revision {status.get('currentRevision')}, last good {status.get('lastGoodRevision')}"
    return Claim(text, status.get("currentRevision") == revision, seen)


def ratio(above: Any, below: Any) -> float:
    """Return the ratio of two numbers as a status writes them, 0 where there is none."""
    try:
        return float(above) / float(below)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0


def says(text: str, sentence: str) -> bool:
    """Say whether the sentence stands in the text, however kubectl breaks its lines."""
    return " ".join(sentence.split()) in " ".join(text.split())


def part(text: str, heading: str, lines: int) -> list[str]:
    """Return some lines of the text from the heading on."""
    all_lines = text.splitlines()
    start = next((i for i, line in enumerate(all_lines) if line.strip() == heading), 0)
    return all_lines[start : start + lines]


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text)
