"""The training loop of distillation: AdamW, cosine decay, one order of samples for one seed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from plimsoll_job.checkpoints import Checkpoint, Checkpoints
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
    checkpoints: Checkpoints | None = None,
) -> tuple[nn.Module, list[float]]:
    """Return a trained copy and the mean loss of each epoch; zeros of the parameters named in `sparse` stay zero.

    `on_epoch` hears the number of finished epochs and the mean loss of the last one. Each epoch draws the order of its
    samples and all else from a seed of its own, so that a training that goes on from a checkpoint ends with the same
    weights as one that was never stopped.
    """
    student = copy.deepcopy(module).train()
    masks = {name: student.get_parameter(name).detach() != 0 for name in sparse}
    samples = len(data.teacher_logits)
    steps = epochs * len(split_samples(torch.arange(samples), batch_size))
    optimizer = torch.optim.AdamW(student.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
    curve: list[float] = []
    step = 0
    if checkpoints is not None and (kept := checkpoints.newest()) is not None:
        step, curve = restore(kept, student, optimizer)
    for epoch in range(len(curve) + 1, epochs + 1):
        total = 0.0
        for batch in split_samples(shuffle(samples, seed, epoch), batch_size):
            chosen = batch.to(data.teacher_logits.device)
            loss = distillation_loss(
                student(*(one[chosen] for one in data.inputs)),
                data.teacher_logits[chosen],
                None if data.labels is None else data.labels[chosen],
                weights,
            )
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * cosine_decay(step / steps)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            _restore_zeros(student, masks)
            total += loss.item() * len(batch)
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss is {total} after epoch {epoch}")
        curve.append(total / samples)
        if checkpoints is not None and epoch < epochs and checkpoints.due():
            checkpoints.save(checkpoint_of(student, optimizer, step, curve))
        on_epoch(epoch, curve[-1])
    return student.eval(), curve


def checkpoint_of(student: nn.Module, optimizer: torch.optim.Optimizer, step: int, curve: list[float]) -> Checkpoint:
    """Return all that the next epochs depend on."""
    tensors = {f"model/{name}": tensor for name, tensor in student.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": tensor for key, tensor in state.items()}
    return Checkpoint(len(curve), tensors, {"step": step, "curve": curve})


def restore(kept: Checkpoint, student: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[float]]:
    """Bring model and optimizer where the checkpoint left them, and return the optimizer's steps and the curve."""
    weights: dict[str, torch.Tensor] = {}
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in kept.tensors.items():
        part, _, rest = name.partition("/")
        if part == "model":
            weights[rest] = tensor
        else:
            number, _, key = rest.partition("/")
            # A copy: what is read from a file is a view of the file, which goes with the next checkpoint.
            moments.setdefault(int(number), {})[key] = tensor.clone()
    student.load_state_dict(weights)
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return kept.facts["step"], list(kept.facts["curve"])


def cosine_decay(progress: float) -> float:
    """Return the share of the peak learning rate at a progress from 0 to 1 (Loshchilov and Hutter 2017)."""
    return (1 + math.cos(math.pi * progress)) / 2


def shuffle(samples: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order of the samples in this epoch, and seed what else the epoch draws by chance, such as dropout."""
    order_seed, other_seed = np.random.SeedSequence([seed, epoch]).generate_state(2).tolist()
    torch.manual_seed(other_seed)
    return torch.randperm(samples, generator=torch.Generator().manual_seed(order_seed))


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
