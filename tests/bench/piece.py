"""A piece of a benchmark that does as it is told."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Do what the first argument says."""
    (what,) = arguments
    if what == "crash":
        os.abort()
    if what == "hang":
        time.sleep(60)
    if what == "eat":
        bytearray(2_000 << 20)
    print("numpy is there" if "numpy" in sys.modules else "numpy is not there")
    return int(what == "fail")
