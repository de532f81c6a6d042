"""`plimsoll validate`: all that is wrong with manifests, at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plimsoll_api import API_VERSION
from plimsoll_api.report import EXIT_REQUEST_WRONG
from plimsoll_cli.read import print_problems, read_file


def validate_files(files: Sequence[Path]) -> int:
    """Print every problem of the files, with its line; return 0 when there is none, else 64."""
    wrong = False
    for file in files:
        objects, problems = read_file(file)
        print_problems(problems)
        wrong = wrong or bool(problems)
        for item in objects:
            print(f"{file}: {item.kind} {item.metadata.name} is right")
        if not objects and not problems:
            print(f"{file}: holds nothing of {API_VERSION}; passed over")
    return EXIT_REQUEST_WRONG if wrong else 0
