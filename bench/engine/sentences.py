"""Real sentences of people: the docstrings of Python's standard library, which every machine has."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

WORDS = range(6, 41)
#: One file in so many is held out, whole: sentences of one file repeat each other.
HELD_OUT_FILES = 4
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_PROSE = re.compile(r"[A-Z][A-Za-z ,;'()\-]+[.!?]")


def sentences(*, held_out: bool) -> list[str]:
    """Return those of the files held out, or of all others, each once, in an order that is always the same."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [file for file in library.rglob("*.py") if not {"site-packages", "test", "tests"} & set(file.parts)]
    chosen = [file for file in sorted(files) if (_number(file, library) % HELD_OUT_FILES == 0) is held_out]
    return sorted({sentence for file in chosen for sentence in _sentences_of(file)})


def _number(file: Path, library: Path) -> int:
    return crc32(str(file.relative_to(library)).encode())


def _sentences_of(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_text())
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            for sentence in _SENTENCE.split(" ".join((ast.get_docstring(node) or "").split())):
                if _PROSE.fullmatch(sentence) and len(sentence.split()) in WORDS:
                    yield sentence
