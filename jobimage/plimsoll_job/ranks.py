"""The processes that train together under torchrun; one alone without it.

The first does all of the work; the others wait until it tells them the number of a step, and train beside it what that
step trains: the whole of it, or the recovery after an iteration of pruning.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

#: How long a process waits: the first may be at a step that it takes alone. A lost one is noticed at once.
PATIENCE = timedelta(days=7)
NO_MORE_STEPS = -1
#: What torchrun sets, and what holds without it.
VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


@dataclass(frozen=True)
class Ranks:
    """The number of this process among all, and among those of its node."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Ranks:
        """Return what torchrun tells this process."""
        return cls(*(int(environment.get(name, default)) for name, default in VARIABLES.items()))

    @property
    def device(self) -> torch.device:
        """Where this process trains: on a GPU of its own where there are any."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

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

    def announce(self, index: int) -> None:
        """Have the others train the step of this number beside this process, the first."""
        self.tell(torch.tensor(index))

    def dismiss(self) -> None:
        """Tell the others that there are no more steps to train; the first process does, at the end of its work."""
        self.announce(NO_MORE_STEPS)

    def total(self, number: int) -> int:
        """Return the sum of the whole numbers of all processes, each of which asks."""
        return int(self.add_up(torch.tensor(number)))

    def announced(self) -> Iterator[int]:
        """Yield the numbers of the steps that the first process announces."""
        while (index := int(self.tell(torch.tensor(NO_MORE_STEPS)))) != NO_MORE_STEPS:
            yield index

    def join(self, learner: nn.Module) -> nn.Module:
        """Return the module whose gradients are the mean of those of all processes."""
        if self.world == 1:
            return learner
        return DistributedDataParallel(
            learner,
            device_ids=[self.local_rank] if self.device.type == "cuda" else None,
            # A model may have parameters that its output does not depend on.
            find_unused_parameters=True,
        )


@contextlib.contextmanager
def meeting(ranks: Ranks) -> Iterator[None]:
    """Meet the other processes, and part from them."""
    if ranks.world == 1:
        yield
        return
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    # What a process waits for comes over gloo: waiting in NCCL keeps the whole GPU busy.
    backend = "cpu:gloo,cuda:nccl" if ranks.device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()
