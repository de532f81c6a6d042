"""The GPUs of this pod, which its resource limits give it; the driver tells of them, without torch."""

from __future__ import annotations

from functools import cache
from types import ModuleType


@cache
def gpu_names() -> tuple[str, ...]:
    """Return the names of the pod's GPUs, in the driver's order."""
    try:
        from cuda.bindings import driver  # noqa: PLC0415 — not made for every platform

        # Without the driver's library this raises RuntimeError.
        driver.cuInit(0)
        failed, count = driver.cuDeviceGetCount()
    except (ImportError, RuntimeError):
        return ()
    return tuple(_name(driver, number) for number in range(0 if failed else count))


def _name(driver: ModuleType, number: int) -> str:
    _, device = driver.cuDeviceGet(number)
    _, name = driver.cuDeviceGetName(256, device)
    return str(name.split(b"\0", 1)[0].decode())
