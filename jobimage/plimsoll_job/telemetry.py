"""The switches of libraries that would tell their makers of their use: nothing that we run does.

ONNX Runtime 1.31 keeps a device's number and events below the user's cache folder, and looks up a host to send them to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

#: Read when a library is loaded. The last is asked by libraries that have no switch of their own.
SWITCHES: Mapping[str, str] = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def switch_off() -> None:
    """Switch telemetry off in this process and in those that it starts."""
    os.environ.update(SWITCHES)
