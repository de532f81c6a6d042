"""The grids that ONNX Runtime rounds weights to: integers times a scale, which it finds from the largest weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from plimsoll_job.techniques.quantize.rounding import TINY, WEIGHTS_REACH


@dataclass(frozen=True)
class Grid:
    """The integers from `least` to `largest`, times a scale for each output, or for each block of its inputs.

    The largest weight that shares a scale becomes `least`, of whichever sign, so that none is cut off.
    """

    least: int
    largest: int
    block: int | None = None

    def blocks(self, weight: Tensor) -> Tensor:
        """Return a weight [outputs, inputs] by what shares a scale, [outputs, blocks, inputs]; zeros fill the last."""
        outputs, inputs = weight.shape
        size = self.block or max(1, inputs)
        padded = torch.nn.functional.pad(weight, (0, -inputs % size))
        return padded.reshape(outputs, padded.shape[1] // size, size)

    def whole(self, blocks: Tensor, inputs: int) -> Tensor:
        """Return the weight [outputs, inputs] that the blocks are of."""
        return blocks.flatten(1)[:, :inputs]

    def ends(self, blocks: Tensor) -> Tensor:
        """Return the largest weight of each block, with its sign, [outputs, blocks, 1]."""
        low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
        return torch.where(high.abs() > low.abs(), high, low)

    def scales(self, blocks: Tensor) -> Tensor:
        """Return the scale of each block, [outputs, blocks, 1], negative where its largest weight is positive.

        0 where all are zero, or so small that ONNX Runtime takes them for that.
        """
        scale = (self.ends(blocks).double() / self.least).to(blocks.dtype)
        return torch.where(scale.abs() < TINY, 0.0, scale)

    def round(self, weight: Tensor) -> Tensor:
        """Return the weight [outputs, inputs] as the nearest on its grids."""
        blocks = self.blocks(weight)
        return self.whole(self.nearest(blocks, self.scales(blocks)), weight.shape[1])

    def nearest(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the nearest numbers on grids of these scales; weights of the scale 0 become 0."""
        integers = (weight / torch.where(scale == 0, 1.0, scale)).round_().clamp_(self.least, self.largest)
        return integers * scale


#: Int8Static, Int8Dynamic and Int8QAT, by the bits of their weights: one scale an output.
INT8: Mapping[int, Grid] = {bits: Grid(-reach, reach) for bits, reach in WEIGHTS_REACH.items()}
#: Int4WeightOnly: one scale for 32 inputs of an output.
INT4 = Grid(-8, 7, 32)
