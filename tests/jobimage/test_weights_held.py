"""How often the weights are in memory at once, with a model that is large against what the interpreter needs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

INPUTS, WIDTH, LAYERS = 16, 2048, 8
#: How the program ends where its pod is killed, and after how many epochs it never is.
KILLED, NEVER = 9, 1_000
#: Runs the small model first: what is imported and set aside on the way is no weight. Then the peak is counted anew.
#: Of a process that loads an output beside this one, what it takes for a small model is no weight either.
PROGRAM = """
import ctypes, gc, json, os, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from safetensors.torch import save_file
from plimsoll_api.plan import Plan
from plimsoll_job.compress import compress
from plimsoll_job.export import reload
from plimsoll_job.export.onnx_export import export_onnx
from plimsoll_job.load.inputs import single
from plimsoll_job.load.store import Store
from plimsoll_job.memory import _status
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.distill.training import Training
from plimsoll_job.techniques.quantize.schemes import SCHEMES
from tests.jobimage import test_weights_held as models

# Float8's graph is made and checked on any machine.
SCHEMES["Float8"] = replace(SCHEMES["Float8"], missing=lambda: None)
root, steps, kind = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
builders = {"small": models.small, "large": getattr(models, sys.argv[4])}
train_epoch, epochs_left = Training._train_epoch, int(sys.argv[5])
def mortal(self):
    global epochs_left
    epochs_left -= name == "large"
    if epochs_left == -1:
        os._exit(models.KILLED)
    return train_epoch(self)
Training._train_epoch = mortal
inputs = np.random.default_rng(0).standard_normal((64, models.INPUTS)).astype(np.float32)
np.savez(root / "data.npz", inputs=inputs, labels=np.arange(64) % 3)
beside = {}
for name in ("small", "large"):
    torch.manual_seed(0)
    module = builders[name]()
    if kind == "onnx":
        export_onnx(module, single((models.INPUTS,)), root / f"{name}.onnx")
        architecture = {"onnx": {}}
    else:
        save_file(module.state_dict(), root / f"{name}.safetensors")
        architecture = {"factory": f"{models.__name__}:{builders[name].__name__}"}
    del module
    weights = (root / f"{name}.{kind}").stat().st_size
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    beside[name] = []
    reload.count_beside = lambda peak: beside[name].append((_status("VmRSS") - before, peak))
    compress(Plan.model_validate({
        "image": "", "task": "TabularClassification", "seed": 0, "steps": steps,
        "model": {"uri": f"pvc://c/{name}.{kind}", "architecture": architecture},
        "train": {"uri": "pvc://c/data.npz"}, "calibration": {"uri": "pvc://c/data.npz"},
        "output": {"uri": f"pvc://c/out-{name}"},
    }), Store(mounts={"c": root}), Reporter(emit=lambda _: None))
# From the last: what was published before a pod was killed is not loaded again.
both = zip(reversed(beside["large"]), reversed(beside["small"]))
print(max(_status("VmHWM") - before, *(own + peak - of_small for (own, peak), (_, of_small) in both)) / weights)
"""

PRUNE = {"prune": {"criterion": "Magnitude", "granularity": "Structured", "amount": "30%"}}
ITERATIONS = {"prune": PRUNE["prune"] | {"iterations": 2, "recovery": {"epochs": 1, "batchSize": 32}}}
TAYLOR = {"prune": {"criterion": "Taylor", "amount": "30%"}}
SINGLE_WEIGHTS = {"prune": {"criterion": "Magnitude", "granularity": "Unstructured", "amount": "30%"}}
#: What stops early keeps the best weights beside those that it trains.
DISTILL = {"distill": {"epochs": 2, "batchSize": 32, "earlyStopping": {"patience": 2}}}
COMPUTE = {"quantize": {"scheme": "Float16", "compute": "Float16"}}
TRAIN_INT8 = {"quantize": {"scheme": "Int8QAT", "training": {"epochs": 1, "batchSize": 32}}}
SCHEMES = {
    "Int8Static": 2.6,
    "Int8Dynamic": 2.3,
    "Int4WeightOnly": 2.3,
    "Float16": 2.3,
    "BFloat16": 2.3,
    "Float8": 2.5,
}


def perceptron(width: int) -> nn.Module:
    hidden = [layer for _ in range(LAYERS) for layer in (nn.Linear(width, width), nn.ReLU())]
    module = nn.Sequential(nn.Linear(INPUTS, width), nn.ReLU(), *hidden, nn.Linear(width, 3))
    module.input_shape = (INPUTS,)  # type: ignore[assignment]
    return module


def small() -> nn.Module:
    return perceptron(32)


def large() -> nn.Module:
    return perceptron(WIDTH)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, width // 16, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + cast(torch.Tensor, self.hidden(tokens))


class Attentive(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_shape, self.width = (INPUTS,), width
        self.first, self.last = nn.Linear(INPUTS, 2 * width), nn.Linear(width, 3)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(LAYERS)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = self.first(inputs).view(-1, 2, self.width)
        return cast(torch.Tensor, self.last(self.blocks(tokens).mean(dim=1)))


def attentive() -> nn.Module:
    return Attentive(WIDTH // 4)


@dataclass(frozen=True)
class Row:
    """Steps, and how often the weights are held by what a model of this builder and format goes through."""

    steps: list[dict[str, Any]]
    most: float
    kind: str = "safetensors"
    builder: str = "large"
    #: How many epochs the model trains until its pod is killed; the next one is measured. Not at all where 0.
    killed_after: int = 0


ROWS = {
    "export": Row([PRUNE], 2.4),
    "attention": Row([PRUNE], 2.4, builder="attentive"),
    "gradients": Row([TAYLOR], 2.4),
    "iterations": Row([ITERATIONS], 3.6),
    "training": Row([PRUNE, DISTILL], 3.0),
    "resumed": Row([PRUNE, DISTILL], 3.0, killed_after=1),
    **{scheme: Row([{"quantize": {"scheme": scheme}}], most) for scheme, most in SCHEMES.items()},
    "compute": Row([COMPUTE], 2.3),
    "Int8QAT": Row([TRAIN_INT8], 5.5),
    "single weights": Row([SINGLE_WEIGHTS], 2.4),
    "onnx": Row([{"quantize": {"scheme": "Float16"}}], 2.3, kind="onnx"),
}


def measured(row: Row, directory: Path, killed_after: int = NEVER) -> subprocess.CompletedProcess[str]:
    arguments = [str(directory), json.dumps(row.steps), row.kind, row.builder, str(killed_after)]
    return subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_the_weights_are_held_no_more_often_than_is_told(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    if row.killed_after:
        assert measured(row, tmp_path, row.killed_after).returncode == KILLED
        shutil.rmtree(tmp_path / "out-small")
    done = measured(row, tmp_path)
    assert done.returncode == 0, done.stderr
    held = float(done.stdout.split()[-1])
    # The figures are those of the guide to sizing pods, with a little room.
    assert 0.8 * row.most < held < row.most, held
