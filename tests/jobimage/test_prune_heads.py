"""Heads of attention go whatever their layers are called, and however much there is of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.jobimage.bench import samples_of
from tests.jobimage.planted import pruned
from torch import nn
from torch.nn import functional

from plimsoll_job.load.inputs import single
from plimsoll_job.techniques.prune.coupling import find_coupling, find_groups


class Attends(nn.Module):
    """Attention of names that nobody knows, with fewer keys than queries where `shared`."""

    input_shape = (6, 32)

    def __init__(self, *, shared: int = 1) -> None:
        super().__init__()
        self.slots, self.shared, self.size = 8, shared, 8
        self.ask, self.answer = nn.Linear(32, 64), nn.Linear(64, 32)
        self.offer = nn.Linear(32, 2 * 64 // shared)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        asked = self.ask(rows).view(len(rows), -1, self.slots, self.size).transpose(1, 2)
        offered = self.offer(rows).view(len(rows), rows.shape[1], 2, -1, self.size).permute(2, 0, 3, 1, 4)
        keys, values = (one.repeat_interleave(self.shared, dim=1) for one in offered)
        scores = (asked @ keys.transpose(-1, -2) / self.size**0.5).softmax(-1)
        mixed = (scores @ values).transpose(1, 2).flatten(2)
        hidden = rows + self.answer(mixed)
        answers: torch.Tensor = self.down(self.up(hidden).relu()).mean(1)
        return answers


@pytest.mark.parametrize("criterion", ["Magnitude", "Activation", "Taylor", "Redundancy"])
@pytest.mark.parametrize("shared", [1, 2, 4])
def test_heads_go_whatever_they_are_called_with_the_keys_that_they_share(shared: int, criterion: str) -> None:
    torch.manual_seed(0)
    module = Attends(shared=shared).eval()
    heads = next(group for group in find_groups(module, single((6, 32))) if group.root == "ask")
    assert heads.of_heads
    assert heads.units[0] == tuple(range(8 * shared))
    applied = pruned(module, samples_of((6, 32), 64), "45%", criterion)
    left: Any = applied.candidate.module
    count = left.ask.out_features // 8
    assert (left.slots, left.answer.in_features, left.offer.out_features) == (count, 8 * count, 16 * count // shared)
    assert count < 8
    assert count % shared == 0
    assert applied.details["heads"] == {"ask": [8 // shared, count // shared]}
    assert left.up.in_features == 32


def test_the_search_ends_where_a_graph_of_single_channels_would_run_in_circles() -> None:
    class Circles(nn.Module):
        """Attention between channels, of each head with itself, many times over, as in XCiT."""

        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(64, 192) for _ in range(12)])
            self.outs = nn.ModuleList([nn.Linear(64, 64) for _ in range(12)])
            self.head = nn.Linear(64, 3)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            for block, out in zip(self.blocks, self.outs, strict=True):
                asked, offered, values = block(rows).view(len(rows), -1, 3, 4, 16).permute(2, 0, 3, 4, 1)
                scores = functional.normalize(asked, dim=-1) @ functional.normalize(offered, dim=-1).transpose(-1, -2)
                rows = rows + out((scores.softmax(-1) @ values).permute(0, 3, 1, 2).flatten(2))
            answers: torch.Tensor = self.head(rows.mean(1))
            return answers

    torch.manual_seed(0)
    coupling = find_coupling(Circles().eval(), single((9, 64)))
    assert [len(group.units) for group in coupling.groups] == [4] * 12
