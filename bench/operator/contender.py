"""The operators that are measured, as processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.operator.control_plane import SYSTEM_NAMESPACE, ControlPlane

STOP_SECONDS = 15


@dataclass(frozen=True)
class Contender:
    """One operator: what it is called in the table, and how it is started."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()
    """Variables that name ports: others on this machine may use the usual ones."""


PLIMSOLL = Contender(
    "plimsoll",
    (sys.executable, "-m", "plimsoll_operator"),
    {"POD_NAMESPACE": SYSTEM_NAMESPACE},
    ("PLIMSOLL_METRICS_PORT", "PLIMSOLL_HEALTH_PORT"),
)
NAIVE = Contender("naive", (sys.executable, "-m", "bench.operator.naive"))


@contextmanager
def started(contender: Contender, plane: ControlPlane) -> Iterator[subprocess.Popen[bytes]]:
    """Start the operator with its default settings; stop it at the end."""
    environment = {**os.environ, **contender.environment, "KUBECONFIG": str(plane.contender_kubeconfig())}
    for variable in contender.ports:
        environment[variable] = str(_free_port())
    plane.instance.logs.mkdir(parents=True, exist_ok=True)
    with log_file(contender, plane).open("wb") as log:
        process = subprocess.Popen(
            contender.command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def log_file(contender: Contender, plane: ControlPlane) -> Path:
    """Return where the operator's output goes."""
    return plane.instance.logs / f"{contender.name}.log"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
