"""Number formats on a GPU: `make bench-gpu`, on a machine that has one.

Each model is given to scheme Auto as a job would, and the table that Auto decides from is printed: bytes, error and the
median latency of each format beside the float model in the same run, as ONNX Runtime serves both on the GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.breadth.made import lay_out, lay_out_bert
from bench.page import markdown_table, put_between_markers, shortened

from plimsoll_api.gates import LatencyMeasurement
from plimsoll_api.model import Fraction
from plimsoll_api.plan import Plan
from plimsoll_api.spec import (
    AutoChoice,
    BiasCorrection,
    Equalization,
    Quantize,
    QuantizeScheme,
    RangeMethod,
    Rounding,
)
from plimsoll_job.checkpoints import Checkpoints
from plimsoll_job.compress import bench_of
from plimsoll_job.load.plan import Loaded, load_plan
from plimsoll_job.load.store import Store
from plimsoll_job.packages import SERVING_RUNTIME, package_versions
from plimsoll_job.progress import Reporter
from plimsoll_job.sessions import serving_gpu
from plimsoll_job.techniques.quantize.auto import Row, measure
from plimsoll_job.techniques.quantize.float_model import float_model_of
from plimsoll_job.techniques.quantize.start import Start
from plimsoll_job.techniques.shape import Candidate

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
TOKENS = 128
BATCH_SIZES = [1, 32]
#: Float32 products are in TF32 there, as ONNX Runtime has them by default.
HEAD = ("format", "computes in", "bytes", "error", *(f"p50, batch {size}" for size in BATCH_SIZES), "Auto says")
#: Nothing is refused for its error: weights are random, and the error of int8 is what it is.
LIMITS = AutoChoice(max_error=Fraction("100%"), latency=LatencyMeasurement(batch_sizes=BATCH_SIZES, rounds=20))
#: Times are what is asked for: how integers are found is left at the defaults.
SETTINGS = Quantize(
    scheme=QuantizeScheme.AUTO,
    auto=LIMITS,
    ranges=RangeMethod.MIN_MAX,
    rounding=Rounding.NEAREST,
    equalization=Equalization.NONE,
    bias=BiasCorrection.KEEP,
)
BERT_BASE = {
    "vocab_size": 8_192, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3_072, "max_position_embeddings": TOKENS, "pad_token_id": 0,
}  # fmt: skip

IMAGES: dict[str, Any] = {"task": "ImageClassification", "calibration": {"uri": "pvc://all/calibration.npz"}}
TEXTS: dict[str, Any] = {
    "task": "TextClassification",
    "calibration": {"uri": "pvc://all/calibration.jsonl", "text": ["text"], "maxLength": TOKENS},
}
Model = tuple[dict[str, Any], dict[str, Any], Callable[[Path], object]]
MODELS: dict[str, Model] = {
    "ResNet-50": ({"torchvision": {"name": "resnet50"}}, IMAGES, lambda at: lay_out("torchvision/resnet50", at, [224])),
    "ViT-B/16": ({"torchvision": {"name": "vit_b_16"}}, IMAGES, lambda at: lay_out("torchvision/vit_b_16", at, [224])),
    "BERT-base": ({"huggingface": {}}, TEXTS, lambda at: lay_out_bert(BERT_BASE, at, TOKENS)),
}


def measured(name: str) -> tuple[int, list[Row]]:
    """Return the bytes of the float model, and what Auto measures beside it."""
    with tempfile.TemporaryDirectory() as directory:
        reporter = Reporter(emit=lambda progress: print(f"{name}: {progress.message}", file=sys.stderr))
        plan, loaded = laid_out(name, Path(directory), reporter)
        start = Start.of(float_model_of(Candidate(loaded.source.module), loaded.signature), loaded.calibration)
        bench = bench_of(plan, 0, loaded, Checkpoints(Path(directory) / "checkpoints"), reporter)
        return start.size_bytes, measure(start, SETTINGS, bench)


def laid_out(name: str, folder: Path, reporter: Reporter) -> tuple[Plan, Loaded]:
    """Write the model and its samples to the folder, and return what a job that quantizes it loads."""
    architecture, parts, lay = MODELS[name]
    lay(folder)
    model = {"uri": "pvc://all/model", "architecture": architecture}
    steps = [{"quantize": {"scheme": "Auto"}}]
    plan = Plan.model_validate(
        {"image": "", "model": model, "steps": steps, "seed": 0, "output": {"uri": "pvc://all/out"}, **parts}
    )
    return plan, load_plan(plan, Store(claims=Path(), mounts={"all": folder}), reporter)


def lines_of(name: str, float_bytes: int, rows: Sequence[Row]) -> list[str]:
    """Return a table of the model."""
    cells = [
        [
            str(row.scheme),
            row.computes,
            f"{row.size_bytes / float_bytes:.2f}" if row.size_bytes else "",
            f"{row.fidelity.error:.4f}" if row.fidelity else "",
            *([f"{one.ratio:.2f} ({one.low:.2f} to {one.high:.2f})" for one in row.latency] or [""] * len(BATCH_SIZES)),
            shortened(row.against or "within the limits"),
        ]
        for row in rows
    ]
    return [f"**{name}**", "", *markdown_table(HEAD, cells), ""]


def main() -> int:
    """Measure, print, and write the page; 1 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    gpu = serving_gpu()
    if gpu is None:
        print("ONNX Runtime finds no GPU here: nothing is measured", file=sys.stderr)
        return 1
    versions = ", ".join(f"{package} {version}" for package, version in package_versions(SERVING_RUNTIME).items())
    lines = [f"Measured on one {gpu}, {versions}. Bytes and times are over the float model's, in the same run.", ""]
    for name in arguments.models:
        lines += lines_of(name, *measured(name))
    print("\n".join(lines))
    put_between_markers(arguments.page, "bench-gpu", lines[:-1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
