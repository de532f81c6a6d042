"""The processes that train together under torchrun; one alone without it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """The number of this process, and of all of them."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Ranks:
        """Return what torchrun tells this process."""
        return cls(int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1")))

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the samples of the batch that are this process's."""
        return batch[self.rank :: self.world]

    def add_up(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the sum of the numbers of all processes."""
        if self.world > 1:
            distributed.all_reduce(numbers)
        return numbers

    def tell(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the numbers of the first process."""
        if self.world > 1:
            distributed.broadcast(numbers, src=0)
        return numbers

    def join(self, learner: nn.Module, device: torch.device) -> nn.Module:
        """Return the module whose gradients are the mean of those of all processes."""
        if self.world == 1:
            return learner
        return DistributedDataParallel(
            learner,
            device_ids=[device.index] if device.type == "cuda" else None,
            # A model may have parameters that its output does not depend on.
            find_unused_parameters=True,
        )
