"""The integer grids of Int8Static as torch functions of floats, as ONNX Runtime computes them; gradients pass through.

Rounding has the gradient of the identity (straight through, Bengio et al. 2013, arXiv 1308.3432); what a grid does not
reach has none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: The integers of activations, taken as signed: unsigned ones are the same grid, counted from 0.
LEAST, LARGEST = -128, 127
#: The largest integer of a weight of so many bits, the smallest its negative: ONNX Runtime's symmetric ranges.
WEIGHTS_REACH = {7: 64, 8: 127}
#: Ranges below the smallest normal number get the scale 1.
TINY = torch.finfo(torch.float32).tiny


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, numbers: Tensor) -> Tensor:
        return numbers.round()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def _round(numbers: Tensor) -> Tensor:
    rounded: Tensor = _Round.apply(numbers)
    return rounded


def grid_of(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and zero point of the range from low to high, both of Float32, 0 within; gradients reach both.

    What lies below the range then moves `low`, what lies above moves `high`, and the rounding inside moves both, as in
    learned step sizes (Esser et al. 2020, arXiv 1902.08153).
    """
    # ONNX Runtime's order of operations, in Float64.
    step = (high.double() - low.double()) / (LARGEST - LEAST)
    zero = _round(LEAST - low.double() / step)
    return step.float(), zero.float()


def round_activation(numbers: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Return the numbers as the nearest of the 256 on the grid."""
    return ((_round(numbers / scale) + zero).clamp(LEAST, LARGEST) - zero) * scale


def round_weight(weight: Tensor, axis: int | None, reach: int) -> tuple[Tensor, Tensor]:
    """Return the weight on its symmetric grids, and their scales: one a slice of the axis, one in all without an axis.

    The largest weight of a slice is the end of its grid, `reach`, so that none is cut off.
    """
    detached = weight.detach()
    others = [other for other in range(weight.ndim) if other != axis]
    largest = detached.abs().amax(others, keepdim=True)
    scale = (2 * largest.double() / (2 * reach)).float()
    scale = torch.where(scale < TINY, 1.0, scale)
    rounded = _round(weight / scale) * scale
    return rounded, scale.flatten()


def round_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """Return the bias as a multiple of the scale: 32 bits hold it as that."""
    scale = scale.detach()
    return _round(bias.double() / scale).float() * scale
