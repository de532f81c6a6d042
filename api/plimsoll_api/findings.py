"""What one check of the gate found, and the words that all checks share."""

from __future__ import annotations

from dataclasses import dataclass

from plimsoll_api import figures
from plimsoll_api.verdict import Verdict

#: The one-sided confidence of limits that say none.
DEFAULT_CONFIDENCE = 0.95
#: Differences of shares are compared to this many decimals, so that 0.95 - 0.93 is 0.02.
DECIMALS = 12


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    verdict: Verdict
    observed: str
    message: str
    needed: int | None = None


def compared(kept: bool, observed: str, message: str) -> Finding:
    """Return Pass or Fail, by a comparison of what was measured."""
    return Finding(Verdict.PASS if kept else Verdict.FAIL, observed, message)


def would_decide(needed: int | None, measured: float, unit: str) -> str:
    """Say how many samples or processes would decide."""
    if needed is None:
        return f"too close to the limit for any reasonable number of {unit} to decide"
    return f"about {figures.count(needed)} {unit} would decide, {figures.count(measured)} were measured"
