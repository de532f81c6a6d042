"""Second moments of what layers read, streamed: memory grows with the channels, never with the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from plimsoll_job.techniques.prune.readers import Reader

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


def moments_of(module: nn.Module, readers: Mapping[str, Reader], batches: Iterable[torch.Tensor]) -> dict[str, Moments]:
    """Return the moments of what each reader reads, in the order in which the module calls them."""
    moments: dict[str, Moments] = {}

    def watch(name: str, inputs: torch.Tensor) -> None:
        reader = readers[name]
        moments.setdefault(name, Moments(reader.channel_count)).add(reader.rows(inputs))

    with torch.no_grad(), watching(module, readers, watch):
        for batch in batches:
            module(batch)
    return moments


@contextmanager
def watching(module: nn.Module, names: Iterable[str], watch: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Hand the input of each of the layers, at each call, to `watch`."""
    layers = dict(module.named_modules())

    def observe(name: str, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        watch(name, inputs[0].detach())

    hooks = [layers[name].register_forward_pre_hook(partial(observe, name)) for name in names]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
