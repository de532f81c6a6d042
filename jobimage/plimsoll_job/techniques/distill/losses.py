"""The formulas of distillation losses. Each takes what the student answers first, and returns one number."""

from __future__ import annotations

import torch
from torch.nn import functional

from plimsoll_job.load.labels import IGNORED

#: Angles are those of all triples of samples: their number grows with the cube of the samples.
RELATION_GROUP = 64
#: The weight of angles where that of distances is 1 (Park et al. 2019, arXiv 1904.05068, section 4).
ANGLE_WEIGHT = 2.0


def softened_divergence(logits: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T² · KL(teacher ‖ student) at temperature T for logits [batch, classes] (arXiv 1503.02531).

    T² keeps its gradients as large as those of the labels term, whose weight then means the same at every temperature.
    """
    divergence = functional.kl_div(
        functional.log_softmax(logits / temperature, dim=1),
        functional.log_softmax(wanted / temperature, dim=1),
        log_target=True,
        reduction="batchmean",
    )
    return temperature**2 * divergence


def softened_divergence_of_tokens(
    logits: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the same for logits [batch, length, classes], of the tokens [batch, length] that the mask leaves.

    The mean over the tokens of a sample, then over samples: parts of a batch then weigh as in the whole.
    """
    divergences = functional.kl_div(
        functional.log_softmax(logits / temperature, dim=2),
        functional.log_softmax(wanted / temperature, dim=2),
        log_target=True,
        reduction="none",
    ).sum(dim=2)
    return temperature**2 * _mean_of_tokens(divergences, mask.to(logits.dtype))


def cross_entropy_of_tokens(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return cross-entropy of logits [batch, length, classes] with labels [batch, length], but where these pass over.

    The mean over the tokens of a sample that count, then over samples.
    """
    entropies = functional.cross_entropy(logits.movedim(2, 1), labels, ignore_index=IGNORED, reduction="none")
    return _mean_of_tokens(entropies, (labels != IGNORED).to(logits.dtype))


def _mean_of_tokens(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return ((values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)).mean()


def feature_distance(given: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean squared error of features [batch, …, width], of the positions that the mask [batch, …] leaves.

    The mean over the positions of a sample that count, then over samples.
    """
    errors = (given - wanted).square().mean(dim=-1)
    if mask is None:
        return errors.mean()
    return _mean_of_tokens(errors.flatten(1), mask.to(errors.dtype).expand(errors.shape).flatten(1))


def attention_map(features: torch.Tensor, width_axis: int) -> torch.Tensor:
    """Return the sum of squares over the width (arXiv 1612.03928): [batch, H, W] of [batch, C, H, W] and axis 1."""
    return features.square().sum(dim=width_axis)


def attention_distance(given: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean squared distance between attention maps [batch, …], each of norm 1 over its positions.

    Of the positions that the mask [batch, …] leaves, where there is one.
    """
    if mask is not None:
        given, wanted = given * mask, wanted * mask
    given, wanted = (functional.normalize(one.flatten(1), dim=1) for one in (given, wanted))
    return (given - wanted).square().sum(dim=1).mean()


def relation_distance(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return how the relations between samples [batch, …] differ: RKD-D + 2 · RKD-A (arXiv 1904.05068).

    Relations are those within groups of RELATION_GROUP samples.
    """
    groups = list(
        zip(torch.split(given.flatten(1), RELATION_GROUP), torch.split(wanted.flatten(1), RELATION_GROUP), strict=True)
    )
    sizes = torch.tensor([float(len(one)) for one, _ in groups], device=given.device)
    values = torch.stack(
        [
            functional.huber_loss(_distances(one), _distances(other))
            + ANGLE_WEIGHT * functional.huber_loss(_angles(one), _angles(other))
            for one, other in groups
        ]
    )
    return (values * sizes).sum() / sizes.sum()


def _distances(samples: torch.Tensor) -> torch.Tensor:
    """Return [n, n] distances in units of their mean."""
    squared = samples.square().sum(dim=1)
    # The root of 0 has no gradient, and a sample's distance to itself is 0.
    distances = (squared[:, None] + squared[None] - 2 * samples @ samples.T).clamp(min=1e-12).sqrt()
    distances = distances * (1 - torch.eye(len(samples), device=samples.device))
    others = distances[distances > 0]
    return distances / others.mean() if len(others) else distances


def _angles(samples: torch.Tensor) -> torch.Tensor:
    """Return [n, n, n] cosines of the angle at each sample between each two others."""
    sides = functional.normalize(samples[None] - samples[:, None], dim=2)
    return torch.bmm(sides, sides.transpose(1, 2))
