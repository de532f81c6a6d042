"""The weights among which zeros are set, each seen as [outputs, inputs, …] however its layer holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from plimsoll_job.figures import CONVOLUTIONS, has_weight, is_transposed
from plimsoll_job.techniques.observe import ATTENTION_INPUTS

TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
#: What torch's attention calls its projections where their inputs differ in width.
PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True)
class Weight:
    """The weight of a convolution, a linear or a recurrent layer, or of projections of torch's attention.

    What it reads is not told where calibration data does not show it.

    Its outputs are in `groups` of the same size; the channels of what it reads, one after the other, are too.
    """

    layer: nn.Module
    parameter: str
    reads: tuple[str, ...]
    groups: int = 1

    @property
    def held(self) -> nn.Parameter:
        """The parameter as the layer holds it now."""
        return self.layer.get_parameter(self.parameter.rpartition(".")[2])

    @property
    def values(self) -> torch.Tensor:
        """The weight as [outputs, inputs, …]: a view, what is written to it the layer has."""
        values = self.held.detach()
        if isinstance(self.layer, TRANSPOSED_CONVOLUTIONS):
            return values.transpose(0, 1)
        return values.T if is_transposed(self.layer) else values

    def size(self) -> torch.Tensor:
        """Return how large each weight is."""
        return self.values.abs()

    def wanda(self, norms: torch.Tensor) -> torch.Tensor:
        """Return the size of each weight times the norm [channels] of what it multiplies."""
        size = self.size()
        rows = norms.to(size.device).view(self.groups, -1).repeat_interleave(len(size) // self.groups, dim=0)
        return size * rows.view(*rows.shape, *[1] * (size.ndim - 2))


def weights_of(module: nn.Module) -> dict[str, Weight]:
    """Return the weights by what a record calls them, of those that layers share the first."""
    found: dict[int, Weight] = {}
    for name, layer in module.named_modules():
        for weight in _held_by(name, layer):
            found.setdefault(id(weight.held), weight)
    return {weight.parameter.removesuffix(".weight"): weight for weight in found.values()}


def other_matrices(module: nn.Module, weights: Mapping[str, Weight]) -> list[str]:
    """Return the names of the parameters of two or more dimensions that are none of the weights."""
    held = {id(weight.held) for weight in weights.values()}
    return [name for name, one in module.named_parameters() if one.ndim > 1 and id(one) not in held]


def _held_by(name: str, layer: nn.Module) -> Iterator[Weight]:
    within = f"{name}." if name else ""
    if has_weight(layer):
        groups = layer.groups if isinstance(layer, CONVOLUTIONS) else 1
        yield Weight(layer, f"{within}weight", (name,), groups)
    elif isinstance(layer, nn.MultiheadAttention):
        reads = tuple(within + one for one in ATTENTION_INPUTS)
        if layer.in_proj_weight is not None:
            yield Weight(layer, f"{within}in_proj_weight", reads, len(reads))
        else:
            for parameter, read in zip(PROJECTIONS, reads, strict=True):
                yield Weight(layer, within + parameter, (read,))
    elif isinstance(layer, nn.RNNBase):
        for parameter, weight in layer.named_parameters(recurse=False):
            if weight.ndim > 1:
                # What it multiplies are its own states, too, which nobody sees.
                yield Weight(layer, within + parameter, ())
    elif isinstance(layer, TRANSPOSED_CONVOLUTIONS) and layer.groups == 1:
        yield Weight(layer, f"{within}weight", ())
