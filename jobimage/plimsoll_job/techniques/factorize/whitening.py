"""What a layer's inputs look like: their second moment, and the change of basis that makes it the identity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from plimsoll_job.techniques.factorize.layers import Target
from plimsoll_job.techniques.observe import observe_inputs

#: Added to the second moment's diagonal, as a share of its mean: a direction that no input has must stay invertible.
RIDGE = 1e-6


@dataclass(frozen=True)
class Whitening:
    """Two inverse matrices of [channels, channels]: `root` times its transpose is the inputs' second moment."""

    root: torch.Tensor
    inverse: torch.Tensor


class SecondMoment:
    """Mean of x·xᵀ over every vector of channels that has entered one layer, in all batches."""

    def __init__(self, layer: nn.Module) -> None:
        self._channel_axis = -1 if isinstance(layer, nn.Linear) else 1
        self._total: torch.Tensor | None = None
        self._count = 0

    def add(self, inputs: torch.Tensor) -> None:
        """Take in one batch."""
        vectors = inputs.movedim(self._channel_axis, -1).flatten(end_dim=-2).double().cpu()
        products = vectors.T @ vectors
        self._total = products if self._total is None else self._total.add_(products)
        self._count += len(vectors)

    @property
    def mean(self) -> torch.Tensor:
        """The mean, float64 of [channels, channels]."""
        if self._total is None:
            raise RuntimeError("no batch was seen")
        return self._total / self._count


def measure_moments(
    module: nn.Module, targets: Sequence[Target], batches: Iterable[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the second moment of each layer's inputs over all batches, by the layer's name."""
    moments = {target.name: SecondMoment(target.layer) for target in targets}
    observe_inputs(module, {name: moment.add for name, moment in moments.items()}, batches)
    return {name: moment.mean for name, moment in moments.items()}


def whiten(moment: torch.Tensor) -> Whitening:
    """Return the whitening of a second moment.

    Any root serves (SVD-LLM, arXiv 2403.07378, takes Cholesky's); that of the eigenvectors stands singular moments.
    """
    ridge = RIDGE * float(moment.diagonal().mean()) or RIDGE
    values, vectors = torch.linalg.eigh(moment)
    roots = (values.clamp(min=0) + ridge).sqrt()
    return Whitening(root=vectors * roots, inverse=(vectors / roots).T)
