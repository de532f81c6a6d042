"""python -m bench.breadth.prepare MODEL FOLDER [own]: weights and samples, as a job would find them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench.breadth.made import SIDES, lay_out

if __name__ == "__main__":
    name, folder, *own = sys.argv[1:]
    print(json.dumps(asdict(lay_out(name, Path(folder), () if own else SIDES))))
