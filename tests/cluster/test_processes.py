"""Only what was started is stopped: a pid that has gone to another process is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import processes
from tests.cluster.settings import Instance


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    monkeypatch.setattr(Instance, "runtime", tmp_path)
    (tmp_path / "pids").mkdir()
    return Instance("test", 0, tmp_path)


def test_a_recycled_pid_is_not_ours(instance: Instance, sleeper: subprocess.Popen[bytes]) -> None:
    (instance.pids / "other").write_text(f"{sleeper.pid} 12345")
    assert not processes.running(instance, "other")
    processes.stop(instance, ["other"], polite_seconds=1)
    assert sleeper.poll() is None


def test_what_was_started_is_stopped(instance: Instance, sleeper: subprocess.Popen[bytes]) -> None:
    start_time = Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[19]
    (instance.pids / "ours").write_text(f"{sleeper.pid} {start_time}")
    assert processes.running(instance, "ours")
    processes.stop(instance, ["ours"], polite_seconds=5)
    assert processes.started_names(instance) == []
    with pytest.raises(ProcessLookupError):
        os.kill(sleeper.pid, 0)


def test_a_pid_file_that_was_cut_short_means_not_running(instance: Instance) -> None:
    (instance.pids / "half").write_text("12")
    assert not processes.running(instance, "half")
