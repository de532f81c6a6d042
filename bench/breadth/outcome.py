"""What became of one row, and the file of rows that an interrupted run goes on from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """One technique on one model; `reason` is empty when it passed.

    `share` is the share of the parameters that went, `error` that of the reloaded answers.
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

    @property
    def passed(self) -> bool:
        """Whether the technique did all that it is asked for."""
        return not self.reason


def read(file: Path) -> dict[tuple[str, str], Outcome]:
    """Return the last outcome of each row of the file; a line that an interrupt cut short is none."""
    found = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            one = Outcome(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            continue
        found[one.model, one.technique] = one
    return found


def append(file: Path, outcomes: Iterable[Outcome]) -> None:
    """Add the outcomes to the file, a line each."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as open_file:
        open_file.writelines(json.dumps(asdict(one)) + "\n" for one in outcomes)
