"""python -m bench.breadth.prepare MODEL FOLDER: weights and samples of one model, as a job would find them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench.breadth.subjects import lay_out

if __name__ == "__main__":
    print(json.dumps(asdict(lay_out(sys.argv[1], Path(sys.argv[2])))))
