"""Second moments of what layers read, streamed: memory grows with the channels, never with the samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

import torch

from plimsoll_job.techniques.observe import HOST

#: Rows that are held in double precision at once.
CHUNK = 65_536
#: Moments that are held at once: for those beyond them the calibration data is passed over again.
MOST_BYTES = 256 << 20
#: The share of a GPU's memory that moments may take; the model and what it makes of a batch need the rest.
MOST_OF_GPU = 0.5

Reader = TypeVar("Reader")


class Moments:
    """Mean and second moment of rows, over all that were added; they are kept, and told, on the device."""

    def __init__(self, width: int, device: torch.device = HOST) -> None:
        self.row_count = 0
        self._sum = torch.zeros(width, dtype=torch.float64, device=device)
        self._products = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, rows: torch.Tensor) -> None:
        """Take in rows of shape [any, width]."""
        self.row_count += len(rows)
        for chunk in rows.split(CHUNK):  # type: ignore[no-untyped-call]
            values = chunk.double().to(self._sum.device)
            self._sum += values.sum(dim=0)
            self._products.addmm_(values.T, values)

    @property
    def mean(self) -> torch.Tensor:
        """The mean of the rows."""
        return self._sum / self.row_count

    def second(self, *, centred: bool) -> torch.Tensor:
        """Return the mean of the rows' outer products, about their mean or about zero."""
        products = self._products / self.row_count
        return products.addr_(self.mean, self.mean, alpha=-1) if centred else products


def bundled(readers: Iterable[Reader], widths_of: Callable[[Reader], Collection[int]]) -> Iterator[list[Reader]]:
    """Yield them, as many at a time as have moments, of these widths, of MOST_BYTES in all; one at least."""
    bundle, held_bytes = list[Reader](), 0
    for reader in readers:
        needed_bytes = sum(width * width for width in widths_of(reader)) * torch.float64.itemsize
        if bundle and held_bytes + needed_bytes > MOST_BYTES:
            yield bundle
            bundle, held_bytes = [], 0
        bundle.append(reader)
        held_bytes += needed_bytes
    if bundle:
        yield bundle


def home_of(widths: Collection[int], device: torch.device) -> torch.device:
    """Return where moments of these widths are kept: on the device, or on the host where a GPU is too small for them.

    It depends on the kind of GPU alone, not on what is free, so that two runs compute alike.
    """
    needed_bytes = sum(width * (width + 1) for width in widths) * torch.float64.itemsize
    if device.type == "cuda" and needed_bytes > MOST_OF_GPU * torch.cuda.get_device_properties(device).total_memory:
        return HOST
    return device
