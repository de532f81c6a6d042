"""Calibration on a GPU beside the processor of the same pod: `make bench-calibration`, on a machine that has a GPU.

What pruning and factorization compute from calibration data is timed on both in one process, as a job computes it: the
norms of what every layer reads (Wanda), their second moments, and the decompositions of all layers that these whiten.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from bench.gpu import MODELS, laid_out
from bench.page import markdown_table, put_between_markers

from plimsoll_job.compress import make_deterministic
from plimsoll_job.cores import core_count
from plimsoll_job.figures import WEIGHTED
from plimsoll_job.load.plan import Loaded
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.factorize.decompose import decompose
from plimsoll_job.techniques.factorize.layers import find_targets
from plimsoll_job.techniques.factorize.whitening import measure_moments, whiten
from plimsoll_job.techniques.observe import HOST, Batches
from plimsoll_job.techniques.prune.statistics import measure_inputs

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
CALIBRATED = ("ViT-B/16", "BERT-base")
HEAD = ("model", "what is computed", "processor", "GPU", "GPU over processor")
GPU = torch.device("cuda", 0)

Found = TypeVar("Found")


def passes(loaded: Loaded, device: torch.device) -> Iterator[tuple[str, float]]:
    """Yield what is computed on the device and the seconds that it takes, one after another."""
    module, samples = loaded.source.module, loaded.calibration
    assert samples is not None  # noqa: S101 — every model here has some
    batches = Batches.of(samples, device)
    layers = [name for name, layer in module.named_modules() if isinstance(layer, WEIGHTED)]
    targets, _ = find_targets(module, loaded.signature)
    _, seconds = _timed(lambda: measure_inputs(module, layers, batches, torch.square))
    yield f"norms of what {len(layers)} layers read, {len(samples)} samples", seconds
    moments, seconds = _timed(lambda: measure_moments(module, targets, batches))
    yield f"second moments of what {len(targets)} layers read, {len(samples)} samples", seconds
    _, seconds = _timed(
        lambda: [decompose(one.layer.weight, whiten(moments[one.name]), device).energy for one in targets]
    )
    yield f"whitened decompositions of {len(targets)} layers", seconds


def _timed(work: Callable[[], Found]) -> tuple[Found, float]:
    begun = time.perf_counter()
    found = work()
    torch.cuda.synchronize()
    return found, time.perf_counter() - begun


def rows_of(name: str) -> list[list[str]]:
    """Return the rows of the model; the GPU is asked twice, since its libraries are loaded when first used."""
    with tempfile.TemporaryDirectory() as directory:
        reporter = Reporter(emit=lambda progress: print(f"{name}: {progress.message}", file=sys.stderr))
        _, loaded = laid_out(name, Path(directory), reporter)
        list(passes(loaded, GPU))
        on_gpu, on_host = dict(passes(loaded, GPU)), dict(passes(loaded, HOST))
    return [
        [name, what, f"{seconds:.2f} s", f"{on_gpu[what]:.2f} s", f"{on_gpu[what] / seconds:.3f}"]
        for what, seconds in on_host.items()
    ]


def main() -> int:
    """Measure, print, and write the page; 1 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(CALIBRATED))
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch finds no GPU here: nothing is measured", file=sys.stderr)
        return 1
    make_deterministic()
    torch.set_num_threads(core_count())
    rows = [row for name in arguments.models for row in rows_of(name)]
    lines = [
        f"Measured on one {torch.cuda.get_device_name(GPU)} beside {core_count()} threads of its pod's processor, "
        f"torch {torch.__version__}.",
        "",
        *markdown_table(HEAD, rows),
    ]
    print("\n".join(lines))
    put_between_markers(arguments.page, "bench-calibration", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
