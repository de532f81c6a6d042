"""Running other programs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError


def run(
    *command: str | Path,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> str:
    """Run `command` and return its standard output; raise ClusterError with its messages when it fails."""
    finished = _finish(command, stdin, cwd, environment, seconds)
    if finished.returncode != 0:
        said = (finished.stderr or finished.stdout).decode(errors="replace").strip()
        shown = " ".join(str(part) for part in command)[:300]
        raise ClusterError(f"`{shown}` ended with {finished.returncode}: {said[-3000:]}")
    return finished.stdout.decode(errors="replace")


def succeeds(*command: str | Path, seconds: float | None = 60) -> bool:
    """Run `command` silently and say whether it ended well; for what may already be so, or already be gone."""
    try:
        return _finish(command, None, None, None, seconds).returncode == 0
    except ClusterError:
        return False


def _finish(
    command: Sequence[str | Path],
    stdin: bytes | None,
    cwd: Path | None,
    environment: Mapping[str, str] | None,
    seconds: float | None,
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            [str(part) for part in command],
            input=b"" if stdin is None else stdin,
            cwd=cwd,
            env=dict(environment) if environment is not None else None,
            capture_output=True,
            check=False,
            timeout=seconds,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"the program {command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{command[0]}` was not done after {seconds:.0f} s") from error
