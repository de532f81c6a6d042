"""Distillation: the compressed model learns to answer as the baseline does; also the recovery after pruning."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from plimsoll_api.spec import Distill
from plimsoll_job.cores import thread_count
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count
from plimsoll_job.load.data import check_classes
from plimsoll_job.techniques.distill.losses import weights_of
from plimsoll_job.techniques.distill.training import TrainingSet, predict, train
from plimsoll_job.techniques.observe import tensors_of
from plimsoll_job.techniques.shape import Applied, Bench, Candidate

CURVE_POINTS = 50
NOT_REPEATABLE = (
    "This device computes a part of the training without a fixed order, so another run of the same plan may give "
    "another artifact."
)


def apply(settings: Distill, candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate trained on the baseline's logits, which are computed once."""
    samples, weights = bench.need_train(), weights_of(settings.losses)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = tuple(tensor.to(device) for tensor in tensors_of(samples.inputs))
    teacher_logits = predict(bench.source.build().to(device), inputs)
    labels = None
    if weights.labels:
        if samples.labels is None:
            raise UserError(f"spec.data.train.labels: {bench.spec_field} needs labels")
        check_classes(samples.labels, teacher_logits.shape[1], "spec.data.train.labels")
        labels = torch.from_numpy(samples.labels).to(device)

    def on_epoch(epoch: int, loss: float) -> None:
        bench.reporter.report("distill", epoch / settings.epochs, f"epoch {epoch}/{settings.epochs}, loss {loss:.4f}")

    macs = count(candidate.module, bench.signature).macs * settings.batch_size
    try:
        with _threads(thread_count(macs)), warnings.catch_warnings(record=True) as warned:
            student, curve = train(
                candidate.module.to(device),
                TrainingSet(inputs, teacher_logits, labels),
                weights=weights,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate.value,
                seed=bench.seed,
                sparse=candidate.sparse,
                on_epoch=on_epoch,
                checkpoints=bench.checkpoints,
            )
    except FloatingPointError as error:
        raise UserError(f"{bench.spec_field}.learningRate: training diverged, {error}; try a smaller one") from error
    return Applied(
        candidate=replace(candidate, module=student.cpu()),
        details={
            "device": device.type,
            "samples": len(samples),
            "weights": {"logits": round(weights.logits, 6), "labels": round(weights.labels, 6)},
            "loss": _thin(curve),
        },
        notes=(NOT_REPEATABLE,) if any("deterministic" in str(one.message) for one in warned) else (),
    )


@contextlib.contextmanager
def _threads(wanted: int) -> Iterator[None]:
    """Let torch use that many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _thin(curve: list[float]) -> list[float]:
    """Return the curve with at most CURVE_POINTS points, first and last among them."""
    count = min(len(curve), CURVE_POINTS)
    return [round(curve[index], 6) for index in np.linspace(0, len(curve) - 1, count).round().astype(int)]
