"""Second moments of what layers read, streamed: memory grows with the channels, never with the samples."""

from __future__ import annotations

import torch

#: Rows that are held in double precision at once.
CHUNK = 65_536


class Moments:
    """Mean and second moment of rows, over all that were added."""

    def __init__(self, width: int) -> None:
        self.row_count = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: torch.Tensor) -> None:
        """Take in rows of shape [any, width]."""
        self.row_count += len(rows)
        for chunk in rows.split(CHUNK):  # type: ignore[no-untyped-call]
            values = chunk.double().cpu()
            self._sum += values.sum(dim=0)
            self._products.addmm_(values.T, values)

    @property
    def mean(self) -> torch.Tensor:
        """The mean of the rows."""
        return self._sum / self.row_count

    def second(self, *, centred: bool) -> torch.Tensor:
        """Return the mean of the rows' outer products, about their mean or about zero."""
        products = self._products / self.row_count
        return products - torch.outer(self.mean, self.mean) if centred else products
