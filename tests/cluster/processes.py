"""The cluster's long-running programs: started once, found again by pid and start time, stopped for certain."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.progress import wait_until
from tests.cluster.settings import Instance


def start(instance: Instance, name: str, *command: str | Path, environment: Mapping[str, str] | None = None) -> None:
    """Start `command` in the instance's network namespace, in a session of its own, unless `name` runs already."""
    if running(instance, name):
        return
    enter = shutil.which("nsenter")
    if not enter:
        raise ClusterError("nsenter is not installed (Debian: util-linux)")
    instance.logs.mkdir(parents=True, exist_ok=True)
    instance.pids.mkdir(parents=True, exist_ok=True)
    log = str(instance.logs / f"{name}.log")
    # `ip netns exec` would mount a fresh /sys, without the cgroups that kubelet needs.
    pid = os.posix_spawn(
        enter,
        [enter, f"--net={instance.namespace_file}", *map(str, command)],
        {**os.environ, **(environment or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    _pid_file(instance, name).write_text(f"{pid} {_start_time(pid)}")


def running(instance: Instance, name: str) -> bool:
    """Say whether the process that was started as `name` is still there."""
    return _find(instance, name) is not None


def await_ready(instance: Instance, name: str, ready: Callable[[], bool], *, seconds: float) -> None:
    """Wait until `ready` holds; raise ClusterError with the end of the log if `name` dies first."""

    def failed() -> str | None:
        return None if running(instance, name) else f"it ended; its log says:\n{log_tail(instance, name)}"

    try:
        wait_until(ready, f"{name} is ready", seconds=seconds, failed=failed)
    except ClusterError as error:
        if running(instance, name):
            raise ClusterError(f"{error}; its log says:\n{log_tail(instance, name)}") from error
        raise


def log_tail(instance: Instance, name: str, lines: int = 15) -> str:
    """Return the last lines that `name` wrote."""
    try:
        text = (instance.logs / f"{name}.log").read_text(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"


def stop(instance: Instance, names: Iterable[str], *, polite_seconds: float = 0) -> None:
    """Stop the processes started as `names`: ask, wait `polite_seconds` for all together, then kill."""
    chosen = list(names)
    if polite_seconds:
        for name in chosen:
            _signal(instance, name, signal.SIGTERM)
        deadline = time.monotonic() + polite_seconds
        while time.monotonic() < deadline and any(running(instance, name) for name in chosen):
            time.sleep(0.05)
    for name in chosen:
        _signal(instance, name, signal.SIGKILL)
    wait_until(lambda: not any(running(instance, name) for name in chosen), f"{', '.join(chosen)} stopped", seconds=20)
    for name in chosen:
        _pid_file(instance, name).unlink(missing_ok=True)


def started_names(instance: Instance) -> list[str]:
    """Return the names under which processes were started, running or not."""
    return sorted(file.name for file in instance.pids.glob("*")) if instance.pids.is_dir() else []


def kill_and_wait(pids: Iterable[int]) -> None:
    """Kill exactly these processes and wait until they are gone."""
    born = {pid: _start_time(pid) for pid in pids}
    for pid, start_time in born.items():
        if start_time:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: not any(then and _start_time(pid) == then for pid, then in born.items()),
        "leftover processes gone",
        seconds=20,
    )


def _pid_file(instance: Instance, name: str) -> Path:
    return instance.pids / name


def _find(instance: Instance, name: str) -> int | None:
    try:
        pid, start_time = _pid_file(instance, name).read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if start_time != "0" and _start_time(int(pid)) == int(start_time) else None


def _signal(instance: Instance, name: str, number: signal.Signals) -> None:
    pid = _find(instance, name)
    if pid is None:
        return
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Looked up again while the descriptor pins the process: the pid cannot have gone to another one.
        if _find(instance, name) == pid:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(held, number)
    finally:
        os.close(held)


def _start_time(pid: int) -> int:
    """Return when `pid` began, in clock ticks since boot; 0 when it is gone or a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    state, start_time = fields[0], int(fields[19])
    return 0 if state in "ZX" else start_time
