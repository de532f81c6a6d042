"""CPU time and memory of running processes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

PERIOD_SECONDS = 0.25


@dataclass(frozen=True)
class Usage:
    """What one process and its children used between two moments."""

    cpu_seconds: float
    peak_rss_bytes: int


class Meter:
    """Measures processes between entering and leaving; peaks are the highest of samples taken each quarter second."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._before: dict[str, float] = {}
        self._peaks: dict[str, int] = {}
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self.usage: dict[str, Usage] = {}

    def __enter__(self) -> Self:
        self._before = {name: cpu_seconds(process) for name, process in self._processes.items()}
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        after = {name: cpu_seconds(process) for name, process in self._processes.items()}
        self._over.set()
        self._sampler.join()
        self.usage = {
            name: Usage(after[name] - self._before[name], self._peaks.get(name, 0)) for name in self._processes
        }

    def _sample(self) -> None:
        while True:
            for name, process in self._processes.items():
                self._peaks[name] = max(self._peaks.get(name, 0), _rss_bytes(process))
            if self._over.wait(PERIOD_SECONDS):
                return


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time that the process and its children, running or ended, have used; 0 when it is gone."""
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                total += sum(child.cpu_times()[:2])
    return total


def _rss_bytes(process: psutil.Process) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        total = process.memory_info().rss
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                total += child.memory_info().rss
    return int(total)
