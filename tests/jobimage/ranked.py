"""One of two processes that train together: python -m tests.jobimage.ranked RANK FOLDER.

The first prints, as JSON, how far what both trained is from what it trains alone, of the way that this goes: by the
optimizer, where all is as it should be and with each fault.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tests.jobimage.bench import bench_of, candidate_of, samples_of
from tests.jobimage.modules import plain_mlp
from torch import distributed, nn

from plimsoll_api.spec import Distill
from plimsoll_job.load.inputs import single
from plimsoll_job.ranks import Ranks
from plimsoll_job.techniques import distill

#: Batches of 13 and of 12 in parts of 3: shares and parts are of several sizes.
SAMPLES = samples_of((13,), 25)
SIGNATURE = single((13,))
SETTINGS = Distill.model_validate(
    {
        "epochs": 6,
        "batchSize": 13,
        "microBatchSize": 3,
        "learningRate": "0.01",
        "losses": [{"logits": {}}, {"labels": {}}],
    }
)


class Whole(Ranks):
    """Each process trains on all of a batch."""

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        return batch


class First(Ranks):
    """All processes train on the first one's share."""

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        return batch[:: self.world]


class Apart(Ranks):
    """No process hears of the others' gradients."""

    def join(self, learner: nn.Module) -> nn.Module:
        learner.no_sync = contextlib.nullcontext  # type: ignore[assignment]
        return learner


class Summed(Ranks):
    """Gradients are added up where their mean is due."""

    def join(self, learner: nn.Module) -> nn.Module:
        joined: Any = super().join(learner)
        # torch refuses annotations that are text, as all of this file are.
        joined.register_comm_hook(
            None,
            lambda _, bucket: (
                distributed.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda done: done.value()[0])
            ),
        )
        return joined  # type: ignore[no-any-return]


class Slow(torch.optim.SGD):
    """Steps as long as their gradients: what differs by rounding goes on to do so by as much."""

    def __init__(self, groups: Any, *, lr: float, fused: bool) -> None:
        super().__init__(groups, lr=lr)


KINDS: dict[str, type[Ranks]] = {"none": Ranks, "whole": Whole, "first": First, "apart": Apart, "summed": Summed}
OPTIMIZERS: dict[str, Any] = {"SGD": Slow, "AdamW": torch.optim.AdamW}


def trained(ranks: Ranks, optimizer: Any) -> torch.Tensor:
    """Return all weights of the model after a training by these processes."""
    torch.manual_seed(1)
    student = plain_mlp().eval()
    torch.manual_seed(0)
    bench = replace(bench_of(plain_mlp().eval(), train=SAMPLES, signature=SIGNATURE), ranks=ranks)
    with mock.patch("torch.optim.AdamW", optimizer):
        module = distill.apply(SETTINGS, candidate_of(student), bench).candidate.module
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    torch.manual_seed(1)
    start = nn.utils.parameters_to_vector(plain_mlp().parameters()).detach()
    found: dict[str, dict[str, float]] = {}
    for name, optimizer in OPTIMIZERS.items():
        alone = trained(Ranks(), optimizer)
        way = float((alone - start).norm())
        for fault, kind in KINDS.items():
            together = trained(kind(rank, 2), optimizer)
            found.setdefault(name, {})[fault] = float((together - alone).norm()) / way
    if rank == 0:
        print(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
