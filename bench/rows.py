"""The file of measured rows that an interrupted benchmark goes on from: one JSON object a line."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from bench.child import ROOT

Row = TypeVar("Row")


def read(file: Path, kind: type[Row]) -> list[Row]:
    """Return the rows in the order in which they were written; a line that an interrupt cut short is none."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            found.append(kind(**json.loads(line)))
        except (json.JSONDecodeError, TypeError):
            continue
    return found


def append(file: Path, row: Any) -> None:
    """Add a row, an instance of a dataclass, to the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Begins a line of its own, should the one before have been cut short.
    with file.open("a") as lines:
        lines.write("\n" * (lines.tell() > 0) + json.dumps(asdict(row)))


def commit() -> str:
    """Return the short name of the commit that is measured, marked when files differ from it."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
