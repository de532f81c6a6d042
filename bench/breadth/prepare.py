"""python -m bench.breadth.prepare MODEL FOLDER: weights and samples of one model, as a job would find them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from bench.breadth import subjects
from safetensors.torch import save

from plimsoll_job.figures import count_parameters


def prepare(name: str, folder: Path) -> dict[str, int]:
    """Write model.safetensors and calibration.npz; return the number of parameters and the side of an image."""
    module = subjects.build(name)
    images = subjects.samples_for(module)
    weights = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(weights))
    np.savez(folder / "calibration.npz", inputs=images.numpy())
    return {"parameters": count_parameters(module), "side": images.shape[-1]}


if __name__ == "__main__":
    print(json.dumps(prepare(sys.argv[1], Path(sys.argv[2]))))
