"""Ranks are chosen so that every layer keeps the same energy, and only where that makes it smaller and faster."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.jobimage.modules import residual
from torch import nn

from plimsoll_job.figures import count
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques.factorize.layers import Target, find_targets
from plimsoll_job.techniques.factorize.ranks import Frontier, energy_for, frontier_of
from plimsoll_job.techniques.factorize.split import smaller_layers


def matrix(name: str, size: int, positions: int = 1) -> Target:
    return Target(name, nn.Linear(size, size, bias=False), positions, positions)


def falling(size: int, power: float) -> NDArray[np.float64]:
    values = np.arange(1.0, size + 1) ** -power
    shares: NDArray[np.float64] = np.cumsum(values) / values.sum()
    return shares


@pytest.mark.parametrize("layer", [
    nn.Linear(12, 9), nn.Conv2d(12, 9, 1, stride=2), nn.Conv2d(12, 9, 3, stride=2, padding=1), nn.Conv1d(12, 9, 3),
], ids=["linear", "pointwise", "strided", "line"])  # fmt: skip
def test_costs_are_those_of_the_layers_that_are_made(layer: nn.Module) -> None:
    shape = {2: (12,), 3: (12, 10), 4: (12, 10, 10)}[layer.get_parameter("weight").ndim]
    module = nn.Sequential(layer)
    (target,), left = find_targets(module, single(shape))
    assert not left
    figures = count(module, single(shape))
    assert (target.parameters, target.macs) == (figures.parameters, figures.macs)
    for ranks in [(1,), (5,), (9,)] if target.is_matrix else [(2, 3), (12, 4), (5, 9)]:
        made = count(nn.Sequential(smaller_layers(layer, ranks)), single(shape))
        assert int(target.factor_parameters(np.array([ranks]))[0]) == made.parameters
        assert int(target.factor_macs(np.array([ranks]))[0]) == made.macs


def test_a_frontier_holds_what_gains_only_and_rises() -> None:
    frontier = frontier_of(matrix("m", 10), falling(10, 1))
    assert [choice.ranks for choice in frontier.choices] == [(1,), (2,), (3,), (4,)]
    parameters = [choice.parameters for choice in frontier.choices]
    energies = [choice.energy for choice in frontier.choices]
    assert parameters == sorted(parameters)
    assert energies == sorted(energies)


def test_ranks_that_save_parameters_but_no_operations_are_left_out() -> None:
    layer = nn.Conv2d(8, 8, 3, stride=4, padding=1)
    (target,), _ = find_targets(nn.Sequential(layer), single((8, 8, 8)))
    grid = np.add.outer(np.arange(1, 9), np.arange(1, 9)) / 16
    frontier = frontier_of(target, grid)
    assert frontier.choices
    ranks = np.argwhere(np.ones((8, 8))) + 1
    smaller = target.factor_parameters(ranks) < target.parameters
    assert (target.factor_macs(ranks)[smaller] >= target.macs).any()
    assert all(choice.macs < target.macs and choice.parameters < target.parameters for choice in frontier.choices)


def test_the_smallest_rank_that_keeps_enough_is_taken() -> None:
    frontier = frontier_of(matrix("m", 10), falling(10, 1))
    energies = falling(10, 1)
    for energy in (0.1, 0.4, energies[2], 0.6):
        choice = frontier.keeping(energy)
        assert choice is not None
        assert choice.ranks == (int(np.argmax(energies >= energy)) + 1,)
    assert frontier.keeping(0.95) is None
    assert frontier.parameters_at(0.95) == 100


@pytest.mark.parametrize("amount", [20, 100, 300, 1000, 1500])
def test_an_amount_is_met_as_nearly_as_any_energy_meets_it(amount: int) -> None:
    frontiers = [frontier_of(matrix(str(p), 30), falling(30, p)) for p in (0.5, 1, 2)]

    def gone(energy: float) -> int:
        return sum(frontier.target.parameters - frontier.parameters_at(energy) for frontier in frontiers)

    energy = energy_for(amount, frontiers)
    levels = {choice.energy for frontier in frontiers for choice in frontier.choices}
    assert abs(gone(energy) - amount) == min(abs(gone(level) - amount) for level in levels)


def test_more_than_there_is_gives_all_there_is() -> None:
    frontiers: list[Frontier] = [frontier_of(matrix("m", 10), falling(10, 1))]
    assert energy_for(10_000, frontiers) == frontiers[0].choices[0].energy


class Odd(nn.Module):
    """Layers that are not what they seem, and one that is."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Linear(16, 16)
        self.once = nn.Linear(16, 16)
        self.again = self.once
        self.tied = nn.Linear(16, 16)
        self.other = nn.Linear(16, 16)
        self.other.weight = self.tied.weight
        self.read = nn.Linear(16, 16)
        self.grouped = nn.Conv1d(16, 16, 1, groups=4)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.other(self.tied(self.again(self.once(self.plain(inputs)))))
        hidden = nn.functional.linear(hidden, self.read.weight)
        hidden = self.grouped(hidden.transpose(1, 2)).transpose(1, 2)
        attended: torch.Tensor = self.attention(hidden, hidden, hidden)[0]
        return attended.mean(dim=1)


def test_layers_that_cannot_be_replaced_are_left_with_the_reason() -> None:
    targets, left = find_targets(Odd().eval(), single((5, 16)))
    assert [target.name for target in targets] == ["plain"]
    assert targets[0].positions_in == targets[0].positions_out == 5
    assert left == {
        "once": "it shares its weight with another layer",
        "tied": "it shares its weight with another layer",
        "other": "it shares its weight with another layer",
        "read": "the model reads its weight instead of calling it",
        "grouped": "its 4 groups are a factorization already",
        "attention.out_proj": "NonDynamicallyQuantizableLinear is no plain layer of torch",
    }


def test_a_layer_that_is_the_whole_model_is_left() -> None:
    assert find_targets(nn.Linear(3, 3), single((3,))) == ([], {"": "it is the whole model"})


def test_positions_are_those_of_one_sample() -> None:
    targets, _ = find_targets(residual().eval(), single((3, 8, 8)))
    assert {target.name: (target.positions_in, target.positions_out) for target in targets} == {
        "stem.0": (64, 64), "inner.0": (64, 64), "outer.0": (64, 64), "head": (1, 1),
    }  # fmt: skip
