"""The training loop of distillation: AdamW, cosine decay, one order of samples for one seed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from plimsoll_job.techniques.distill.losses import LossWeights, distillation_loss
from plimsoll_job.techniques.observe import Batch

PREDICT_BATCH_SIZE = 512
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class TrainingSet:
    """What the student learns from, on the device: inputs, the teacher's logits, labels where they are used."""

    inputs: Batch
    teacher_logits: torch.Tensor
    labels: torch.Tensor | None


def predict(module: nn.Module, inputs: Batch) -> torch.Tensor:
    """Return the module's logits for all inputs, in evaluation mode."""
    module.eval()
    with torch.no_grad():
        batches = zip(*(torch.split(one, PREDICT_BATCH_SIZE) for one in inputs), strict=True)
        return torch.cat([module(*batch) for batch in batches])


def train(
    module: nn.Module,
    data: TrainingSet,
    *,
    weights: LossWeights,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    sparse: frozenset[str],
    on_epoch: Callable[[int, float], None],
) -> nn.Module:
    """Return a trained copy; zeros of the parameters named in `sparse` stay zero.

    `on_epoch` hears the number of finished epochs and the mean loss of the last one. The order of the samples follows
    from the seed alone.
    """
    student = copy.deepcopy(module).train()
    masks = {name: student.get_parameter(name).detach() != 0 for name in sparse}
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    samples = len(data.teacher_logits)
    batches = len(split_samples(torch.arange(samples), batch_size))
    optimizer = torch.optim.AdamW(student.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * batches)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in split_samples(torch.randperm(samples, generator=order), batch_size):
            chosen = batch.to(data.teacher_logits.device)
            loss = distillation_loss(
                student(*(one[chosen] for one in data.inputs)),
                data.teacher_logits[chosen],
                None if data.labels is None else data.labels[chosen],
                weights,
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            _restore_zeros(student, masks)
            total += loss.item() * len(batch)
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss is {total} after epoch {epoch}")
        on_epoch(epoch, total / samples)
    return student.eval()


def split_samples(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Return the batches; a last one of a single sample joins the one before, since batch norm cannot take it."""
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _restore_zeros(student: nn.Module, masks: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, mask in masks.items():
            student.get_parameter(name).mul_(mask)
