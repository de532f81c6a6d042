"""A run that is stopped ends in one sentence and leaves nothing behind; one that is killed leaves nobody computing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.cli.test_run import JOB, claims

__all__ = ["claims"]

#: Trains for minutes.
STEP = "distill: {epochs: 10000, batchSize: 16}"


@contextmanager
def training(tmp_path: Path, claims: dict[str, Path]) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Start a run whose temporary files lie in `temporary`; yield it and the processes below it once these train."""
    text = JOB.format(gate="{metric: size, maxRatio: 1}").replace("calibration:", "train:")
    (tmp_path / "job.yaml").write_text(text.replace("prune: {criterion: Magnitude, amount: 30%}", STEP))
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, "-m", "plimsoll_cli", "run", "job.yaml"]
    process = subprocess.Popen(
        [*command, *(f"--mount={claim}={path}" for claim, path in claims.items())],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    below: list[psutil.Process] = []
    try:
        lines = iter(process.stdout)
        assert any("epoch 1/10000" in line for line in lines)
        below = psutil.Process(process.pid).children(recursive=True)
        assert below
        yield process, below
    finally:
        process.kill()
        for one in (one for one in below if one.is_running()):
            one.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to_all", [True, False], ids=["as a terminal sends it", "to the run alone"])
def test_a_signal_ends_a_run_in_one_sentence(
    tmp_path: Path, claims: dict[str, Path], number: signal.Signals, to_all: bool
) -> None:
    with training(tmp_path, claims) as (process, below):
        began = time.monotonic()
        (os.killpg if to_all else os.kill)(process.pid, number)
        _, told = process.communicate(timeout=60)
        assert time.monotonic() - began < 15
        assert process.returncode == 128 + number
        assert not psutil.wait_procs(below, timeout=0)[1]
    sentence = "finished steps are kept in pvc://models/out, and the same command goes on from them"
    assert told == f"stopped by {number.name}; {sentence}\n"
    assert list((claims["models"] / "out" / "work").glob("*/inputs.json"))
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.slow
def test_nobody_goes_on_computing_for_a_run_that_was_killed(tmp_path: Path, claims: dict[str, Path]) -> None:
    with training(tmp_path, claims) as (process, below):
        process.kill()
        process.wait()
        assert not psutil.wait_procs(below, timeout=20)[1]
