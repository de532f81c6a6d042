"""Which tensor of a layer writes channels and which reads them, by its kind."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from plimsoll_job.figures import CONVOLUTIONS

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Role:
    """The tensors and axes on which a layer writes channels and reads them.

    What hands its channels on in groups reads none by itself.
    """

    writes: tuple[str, int]
    reads: tuple[str, int] | None


def role_of(layer: nn.Module) -> Role | None:
    """Return the role of a layer that mixes channels, none of others."""
    if isinstance(layer, nn.Linear):
        return Role(("weight", 0), ("weight", 1))
    if isinstance(layer, CONVOLUTIONS):
        return Role(("weight", 0), ("weight", 1) if layer.groups == 1 else None)
    if isinstance(layer, TRANSPOSED):
        return Role(("weight", 1), ("weight", 0)) if layer.groups == 1 else Role(("weight", 0), None)
    if isinstance(layer, nn.RNNBase):
        return Role(("weight_hh_l0", 1), ("weight_ih_l0", 1))
    return None
