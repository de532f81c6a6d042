"""Tables of a benchmark in the documentation: each stands between two markers, and is written anew by its command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LONGEST_REASON = 240


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; the first column reads from the left, the others from the right."""
    return [
        "| " + " | ".join(head) + " |",
        "|---" + "|---:" * (len(head) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def put_between_markers(file: Path, command: str, lines: Sequence[str]) -> None:
    """Put the lines into the file between the command's two markers; append them when the file has none."""
    begin, end = f"<!-- {command} begin: written by make {command} -->", f"<!-- {command} end -->"
    section = "\n".join([begin, *lines, end])
    old = file.read_text() if file.exists() else ""
    before, found, rest = old.partition(begin)
    _, ended, after = rest.partition(end)
    if found and ended:
        file.write_text(before + section + after)
    else:
        file.write_text(f"{old.rstrip()}\n\n{section}\n".lstrip())


def shortened(reason: str) -> str:
    """Return what went wrong as one cell of a table."""
    text = " ".join(reason.split()).replace("|", "\\|")
    return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "…"
