"""`python -m plimsoll_operator`."""

from __future__ import annotations

import asyncio
import sys

from plimsoll_operator import logs
from plimsoll_operator.app import Operator
from plimsoll_operator.cluster.client import Cluster
from plimsoll_operator.settings import Settings, parse_settings


async def operate(settings: Settings) -> int:
    """Run one operator and return its exit code."""
    return await Operator(await Cluster.connect(), settings).run()


def main() -> None:
    """Run until asked to stop."""
    settings = parse_settings()
    logs.set_up(settings.log_format, settings.log_level)
    sys.exit(asyncio.run(operate(settings)))


if __name__ == "__main__":
    main()
