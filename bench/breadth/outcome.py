"""What became of one row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One technique on one model; `reason` is empty when it passed.

    `share` is the share of the parameters that went, `error` that of the reloaded answers, `ratio` the median latency
    of int8 over float with its 95% interval from `low` to `high`.
    """

    model: str
    technique: str
    commit: str
    reason: str
    seconds: float
    peak_memory_bytes: int
    parameters: int = 0
    side: int | None = None
    share: float | None = None
    error: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the technique did all that it is asked for."""
        return not self.reason
