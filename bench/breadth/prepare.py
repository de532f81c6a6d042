"""Weights and samples of one model in a folder, as a job would find them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.breadth.made import SIDES, lay_out


def main(arguments: Sequence[str]) -> int:
    """MODEL FOLDER [own]: lay the model out, with images as large as it wants them if asked so, and print what was."""
    name, folder, *own = arguments
    print(json.dumps(asdict(lay_out(name, Path(folder), () if own else SIDES))))
    return 0
