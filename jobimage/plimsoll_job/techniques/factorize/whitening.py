"""What a layer's inputs look like: their second moment, and the change of basis that makes it the identity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from plimsoll_job.techniques.factorize.layers import Target
from plimsoll_job.techniques.moments import Moments
from plimsoll_job.techniques.observe import Batch, observe_inputs

#: Added to the second moment's diagonal, as a share of its mean: a direction that no input has must stay invertible.
RIDGE = 1e-6


@dataclass(frozen=True)
class Whitening:
    """Two inverse matrices of [channels, channels]: `root` times its transpose is the inputs' second moment."""

    root: torch.Tensor
    inverse: torch.Tensor


def measure_moments(module: nn.Module, targets: Sequence[Target], batches: Iterable[Batch]) -> dict[str, torch.Tensor]:
    """Return the second moment of each layer's inputs over all batches, by the layer's name."""
    moments = {target.name: Moments(target.layer.weight.shape[1]) for target in targets}
    observers = {target.name: partial(_add, moments[target.name], target.layer) for target in targets}
    observe_inputs(module, observers, batches)
    return {name: moment.second(centred=False) for name, moment in moments.items()}


def _add(moments: Moments, layer: nn.Module, inputs: torch.Tensor) -> None:
    channel_axis = -1 if isinstance(layer, nn.Linear) else 1
    moments.add(inputs.movedim(channel_axis, -1).flatten(end_dim=-2))


def whiten(moment: torch.Tensor) -> Whitening:
    """Return the whitening of a second moment.

    Any root serves (SVD-LLM, arXiv 2403.07378, takes Cholesky's); that of the eigenvectors stands singular moments.
    """
    ridge = RIDGE * float(moment.diagonal().mean()) or RIDGE
    values, vectors = torch.linalg.eigh(moment)
    roots = (values.clamp(min=0) + ridge).sqrt()
    return Whitening(root=vectors * roots, inverse=(vectors / roots).T)
