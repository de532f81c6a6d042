"""Ours: the job image's own way, from a plan to a published artifact."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.engine.case import TOKENS, Case

Steps = Sequence[dict[str, Any]]
INT8: Steps = [{"quantize": {"scheme": "Int8Static"}}]


def carry_out(case: Case, folder: Path, *, steps: Steps, distilled: bool = False) -> None:
    """Compress with these steps; after the first, distil for the budget's epochs where that is ordered."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from plimsoll_api.plan import Plan  # noqa: PLC0415
    from plimsoll_job.compress import compress  # noqa: PLC0415
    from plimsoll_job.load.store import Store  # noqa: PLC0415
    from plimsoll_job.progress import Reporter  # noqa: PLC0415

    distill = {
        "epochs": case.epochs,
        "batchSize": case.batch_size,
        "learningRate": str(case.learning_rate),
        "losses": [{"logits": {"temperature": 4}}, {"labels": {"weight": "30%"}}],
    }
    text = case.task == "Embedding"
    plan = Plan.model_validate({
        "image": "",
        "model": {"uri": f"pvc://case/model{'' if text else '.safetensors'}", "architecture": case.architecture},
        "task": case.task,
        "train": None if text else {"uri": "pvc://case/train.npz"},
        "calibration": {"uri": "pvc://case/calibration.jsonl", "text": ["text"], "maxLength": TOKENS}
        if text
        else {"uri": "pvc://case/calibration.npz"},
        "steps": [steps[0], {"distill": distill}, *steps[1:]] if distilled else steps,
        "seed": case.seed,
        "output": {"uri": "pvc://out/store"},
    })  # fmt: skip
    store = Store(claims=folder, mounts={"case": case.folder, "out": folder})
    summary = compress(plan, store, Reporter(emit=lambda _: None))
    assert summary.candidate is not None  # noqa: S101 — compress came to its end
    artifact = store.locate(summary.candidate.uri, "artifact")
    shutil.copy(artifact / "model.onnx", folder / "model.onnx")


def _prune(criterion: str, amount: str) -> dict[str, Any]:
    return {"prune": {"criterion": criterion, "granularity": "Structured", "amount": amount}}


VARIANTS = {
    "int8": partial(carry_out, steps=INT8),
    **{
        f"activation {amount}, distilled": partial(carry_out, steps=[_prune("Activation", amount)], distilled=True)
        for amount in ("30%", "73%", "88%")
    },
    **{
        f"activation {amount}, distilled, int8": partial(
            carry_out, steps=[_prune("Activation", amount), *INT8], distilled=True
        )
        for amount in ("73%", "88%")
    },
    **{
        f"{criterion} {amount}, no training": partial(carry_out, steps=[_prune(criterion, amount)])
        for amount in ("60%", "80%")
        for criterion in ("Redundancy", "Magnitude")
    },
    "Redundancy 60%, no training, int8": partial(carry_out, steps=[_prune("Redundancy", "60%"), *INT8]),
}
EMBEDDING_VARIANTS = {
    "int8": partial(carry_out, steps=INT8),
    "int8 dynamic": partial(carry_out, steps=[{"quantize": {"scheme": "Int8Dynamic"}}]),
    "Redundancy 15%, no training": partial(carry_out, steps=[_prune("Redundancy", "15%")]),
    "whitened SVD 15%, no training": partial(
        carry_out, steps=[{"factorize": {"method": "ActivationSvd", "amount": "15%"}}]
    ),
}
