"""The moments of what the readers of channels read."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from plimsoll_job.techniques.moments import Moments, home_of
from plimsoll_job.techniques.observe import Batches
from plimsoll_job.techniques.padding import Padding, observe_inputs
from plimsoll_job.techniques.prune.readers import Reader


def moments_of(
    module: nn.Module, readers: Mapping[str, Reader], batches: Batches, padding: Padding | None = None
) -> dict[str, Moments]:
    """Return the moments of what each reader reads, in the order in which the module calls them."""
    home = home_of([reader.channel_count for reader in readers.values()], batches.device)
    moments: dict[str, Moments] = {}

    def watch(name: str, inputs: torch.Tensor, counted: torch.Tensor | None) -> None:
        reader = readers[name]
        moments.setdefault(name, Moments(reader.channel_count, home)).add(reader.rows(inputs, counted))

    observe_inputs(module, readers, watch, batches, padding)
    return moments
