"""The moments of what the readers of channels read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from plimsoll_job.techniques.moments import Moments
from plimsoll_job.techniques.observe import Batch, watching
from plimsoll_job.techniques.prune.readers import Reader


def moments_of(module: nn.Module, readers: Mapping[str, Reader], batches: Iterable[Batch]) -> dict[str, Moments]:
    """Return the moments of what each reader reads, in the order in which the module calls them."""
    moments: dict[str, Moments] = {}

    def watch(name: str, inputs: torch.Tensor) -> None:
        reader = readers[name]
        moments.setdefault(name, Moments(reader.channel_count)).add(reader.rows(inputs))

    with torch.no_grad(), watching(module, readers, watch):
        for batch in batches:
            module(*batch)
    return moments
