"""python -m bench.engine.compress PEER VARIANT CASE FOLDER: one contender's work, in the contender's environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench.engine.case import Case
from bench.engine.contenders import peer_named


def main() -> None:
    """Call the variant; its process is what is timed."""
    peer, variant, case, folder = sys.argv[1:]
    read = Case.read(Path(case))
    os.environ["OMP_NUM_THREADS"] = str(read.threads)
    peer_named(peer).variants_for(read.model)[variant](read, Path(folder))


if __name__ == "__main__":
    main()
