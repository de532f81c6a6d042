"""How large the channels of a value are, over all that is seen of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plimsoll_job.techniques.quantize.refine.place import Where


@dataclass
class Sizes:
    """The least, the largest, and the mean square of each channel's numbers over all that were added."""

    low: Tensor
    high: Tensor
    squares: Tensor
    count: int = 0

    @classmethod
    def of(cls, channels: int) -> Sizes:
        """Return the sizes of so many channels before any number."""
        zeros = torch.zeros(channels, dtype=torch.float64)
        return cls(zeros, zeros.clone(), zeros.clone())

    def add(self, value: Tensor, counted: Tensor | None, at: Where) -> None:
        """Take in a value; 0 stands for what does not count, and is within every grid."""
        if counted is not None:
            value = torch.where(counted, value, 0.0)
        rows = value.movedim(at.axis, 0).reshape(len(self.low), -1)
        if rows.shape[1]:
            self.low = torch.minimum(self.low, rows.amin(1).double())
            self.high = torch.maximum(self.high, rows.amax(1).double())
            self.squares += rows.double().square().sum(1)
            self.count += rows.shape[1]

    @property
    def largest(self) -> Tensor:
        """The largest magnitude of each channel."""
        return torch.maximum(self.high, -self.low)

    @property
    def mean_square(self) -> Tensor:
        """The mean square of each channel; zeros count where padding stood, for all channels alike."""
        return self.squares / max(1, self.count)
