"""How often the weights are in memory at once, with a model that is large against what the interpreter needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

INPUTS, WIDTH, LAYERS = 16, 2048, 8
#: Runs the small model first: what is imported and set aside on the way is no weight. Then the peak is counted anew.
#: Of a process that loads an output beside this one, what it takes for a small model is no weight either.
PROGRAM = """
import ctypes, gc, json, sys
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
from plimsoll_job.techniques.quantize.schemes import SCHEMES
from tests.jobimage import test_weights_held as models

# Float8's graph is made and checked on any machine.
SCHEMES["Float8"] = replace(SCHEMES["Float8"], missing=lambda: None)
root, steps, kind = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
inputs = np.random.default_rng(0).standard_normal((64, models.INPUTS)).astype(np.float32)
np.savez(root / "data.npz", inputs=inputs, labels=np.arange(64) % 3)
beside = {}
for name in ("small", "large"):
    torch.manual_seed(0)
    module = getattr(models, name)()
    if kind == "onnx":
        export_onnx(module, single((models.INPUTS,)), root / f"{name}.onnx")
        architecture = {"onnx": {}}
    else:
        save_file(module.state_dict(), root / f"{name}.safetensors")
        architecture = {"factory": f"{models.__name__}:{name}"}
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
fresh = beside["small"][0][1]
print(max(_status("VmHWM") - before, *(own + peak - fresh for own, peak in beside["large"])) / weights)
"""

PRUNE = {"prune": {"criterion": "Magnitude", "granularity": "Structured", "amount": "30%"}}
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "kind", "most"),
    [
        ([PRUNE], "safetensors", 2.4),
        ([PRUNE, DISTILL], "safetensors", 4.1),
        *(([{"quantize": {"scheme": scheme}}], "safetensors", most) for scheme, most in SCHEMES.items()),
        ([COMPUTE], "safetensors", 2.3),
        ([TRAIN_INT8], "safetensors", 5.5),
        ([SINGLE_WEIGHTS], "safetensors", 3.1),
        ([{"quantize": {"scheme": "Float16"}}], "onnx", 2.3),
    ],
    ids=["export", "training", *SCHEMES, "compute", "Int8QAT", "single weights", "onnx"],
)
def test_the_weights_are_held_no_more_often_than_is_told(
    steps: list[dict[str, Any]], kind: str, most: float, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), json.dumps(steps), kind],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    held = float(done.stdout.split()[-1])
    # The figures are those of the guide to sizing pods, with a little room.
    assert 0.8 * most < held < most, held
