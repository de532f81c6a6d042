"""The room that is asked for at the start is enough for what is written at the fullest."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.jobimage.claims import INT8, Claims
from torch import nn

from plimsoll_job import room
from plimsoll_job.checkpoints import Checkpoints
from plimsoll_job.compress import compress
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.publish import files

DISTILL = {"distill": {"epochs": 2, "batchSize": 32, "earlyStopping": {"patience": 2}}}
TURNS = {
    "prune": {
        "criterion": "Magnitude",
        "granularity": "Unstructured",
        "amount": "1%",
        "iterations": 6,
        "recovery": {"epochs": 2},
    }
}
LITTLE = {"prune": {"criterion": "Magnitude", "granularity": "Unstructured", "amount": "1%"}}


def wide_mlp() -> nn.Module:
    module = nn.Sequential(nn.Linear(13, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 3))
    module.input_shape = (13,)  # type: ignore[assignment]
    return module


def bytes_of(directory: Path) -> int:
    total = 0
    for file in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


@contextlib.contextmanager
def sampled(directory: Path) -> Iterator[list[int]]:
    """Give a list of how many bytes the directory held, again and again."""
    held, over = [], threading.Event()

    def sample() -> None:
        while not over.wait(0.002):
            # A folder that goes while its files are listed: the next sample sees what is left.
            with contextlib.suppress(FileNotFoundError):
                held.append(bytes_of(directory))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield held
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "formats"),
    [([LITTLE, DISTILL, INT8], ["Onnx"]), ([LITTLE, DISTILL], ["Onnx", "TorchExport"]), ([TURNS], ["Onnx"])],
    ids=["int8", "formats", "iterations"],
)
def test_no_more_is_ever_written_than_was_asked_for(
    claims: Claims, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[dict[str, Any]], formats: list[str]
) -> None:
    torch.manual_seed(0)
    save_file(wide_mlp().state_dict(), claims.weights)
    plan = claims.plan(
        steps,
        model={"uri": "pvc://models/wine", "architecture": {"factory": "tests.jobimage.test_room:wide_mlp"}},
        output={"uri": "pvc://out/wine", "formats": formats},
    )
    # What they are meant for is small beside these weights; it must not hide a copy that is not counted.
    monkeypatch.setattr(room, "SMALL_FILES_BYTES", 1 << 16)
    monkeypatch.setattr(Checkpoints, "due", lambda *_, **__: True)
    held: list[int] = []
    write = files._write_synced

    def watched(path: Path, content: files.Content) -> None:
        write(path, content)
        held.append(bytes_of(claims.directory / "out"))

    monkeypatch.setattr(files, "_write_synced", watched)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    weights = claims.weights.stat().st_size
    needed, passing = room.bytes_needed(plan, weights), room.temporary_bytes_needed(plan, weights)
    with sampled(temporary) as passed:
        compress(plan, Store(claims=claims.directory), Reporter(emit=lambda _: None))
    torch.set_num_threads(1)
    assert len(held) >= 20
    assert 0.3 * needed < max(held) <= needed, max(held) / needed
    assert 0.2 * passing < max(passed) <= passing, max(passed) / passing
    assert bytes_of(temporary) == 0
