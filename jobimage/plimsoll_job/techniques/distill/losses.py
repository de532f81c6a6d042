"""The terms of the distillation loss, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from plimsoll_api.spec import DistillLoss


@dataclass(frozen=True)
class LossWeights:
    """Shares of the total loss; they sum to 1."""

    logits: float
    labels: float
    temperature: float


def weights_of(losses: Sequence[DistillLoss]) -> LossWeights:
    """Return the weights; a term without one gets what the others leave, two such terms get half each."""
    given = {
        "logits" if loss.logits is not None else "labels": (loss.logits or loss.labels).weight  # type: ignore[union-attr]
        for loss in losses
    }
    stated = sum(weight.value for weight in given.values() if weight is not None)
    unstated = sum(weight is None for weight in given.values())
    rest = (1 - stated) / unstated if unstated else 0.0
    shares = {name: rest if weight is None else weight.value for name, weight in given.items()}
    temperature = next((loss.logits.temperature.value for loss in losses if loss.logits is not None), 1.0)
    return LossWeights(shares.get("logits", 0.0), shares.get("labels", 0.0), temperature)


def distillation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, labels: torch.Tensor | None, weights: LossWeights
) -> torch.Tensor:
    """Return the weighted sum of the terms for logits of shape [batch, classes].

    The logits term is T² · KL(teacher ‖ student) at temperature T (Hinton et al. 2015, arXiv 1503.02531): T² keeps its
    gradients as large as those of the labels term, whose weight then means the same at every temperature.
    """
    loss = logits.new_zeros(())
    if weights.logits:
        divergence = functional.kl_div(
            functional.log_softmax(logits / weights.temperature, dim=1),
            functional.log_softmax(teacher_logits / weights.temperature, dim=1),
            log_target=True,
            reduction="batchmean",
        )
        loss = loss + weights.logits * weights.temperature**2 * divergence
    if weights.labels and labels is not None:
        loss = loss + weights.labels * functional.cross_entropy(logits, labels)
    return loss
