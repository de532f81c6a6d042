"""What a layer's inputs look like: their second moment, and the change of basis that makes it the identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from plimsoll_job.techniques.factorize.layers import Target
from plimsoll_job.techniques.moments import Moments, home_of
from plimsoll_job.techniques.observe import Batches, rows_of
from plimsoll_job.techniques.padding import Padding, channel_axis, observe_inputs

#: Added to the second moment's diagonal, as a share of its mean: a direction that no input has must stay invertible.
RIDGE = 1e-6


@dataclass(frozen=True)
class Whitening:
    """Two inverse matrices of [channels, channels]: `root` times its transpose is the inputs' second moment."""

    root: torch.Tensor
    inverse: torch.Tensor


def measure_moments(
    module: nn.Module, targets: Sequence[Target], batches: Batches, padding: Padding | None = None
) -> dict[str, torch.Tensor]:
    """Return the second moment of each layer's inputs over all batches, by the layer's name."""
    widths = {target.name: target.layer.weight.shape[1] for target in targets}
    home = home_of(widths.values(), batches.device)
    moments = {name: Moments(width, home) for name, width in widths.items()}
    channel_axes = {target.name: channel_axis(target.layer) for target in targets}

    def watch(name: str, inputs: torch.Tensor, counted: torch.Tensor | None) -> None:
        moments[name].add(rows_of(inputs, channel_axes[name], counted))

    observe_inputs(module, moments, watch, batches, padding)
    # Of each layer in the place of its sums, as large as they are.
    return {name: moments.pop(name).second(centred=False) for name in list(moments)}


def whiten(moment: torch.Tensor) -> Whitening:
    """Return the whitening of a second moment.

    Any root serves (SVD-LLM, arXiv 2403.07378, takes Cholesky's); that of the eigenvectors stands singular moments.
    """
    ridge = RIDGE * float(moment.diagonal().mean()) or RIDGE
    values, vectors = torch.linalg.eigh(moment)
    roots = (values.clamp(min=0) + ridge).sqrt()
    return Whitening(root=vectors * roots, inverse=(vectors / roots).T)
