"""Which ranks: the fewest parameters at an energy, and the energy at which an amount of parameters goes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plimsoll_job.techniques.factorize.layers import Target


@dataclass(frozen=True)
class Choice:
    """Ranks of one layer, and what they keep and cost."""

    ranks: tuple[int, ...]
    energy: float
    parameters: int
    macs: int


@dataclass(frozen=True)
class Frontier:
    """The ranks of one layer that make it smaller and faster, but for those that others beat in size and energy.

    They stand from the fewest parameters to the most, and so from the least energy to the most.
    """

    target: Target
    full_ranks: tuple[int, ...]
    choices: tuple[Choice, ...]

    def keeping(self, energy: float) -> Choice | None:
        """Return the smallest choice that keeps this share of the energy, None when the layer is better left."""
        at = bisect_left(self.choices, energy, key=lambda choice: choice.energy)
        return self.choices[at] if at < len(self.choices) else None

    def parameters_at(self, energy: float) -> int:
        """Return the parameters of the layer when it keeps this share of its energy."""
        choice = self.keeping(energy)
        return self.target.parameters if choice is None else choice.parameters


def frontier_of(target: Target, energy: NDArray[np.float64]) -> Frontier:
    """Return the frontier of a layer whose energy at all ranks is [ranks] or [in ranks, out ranks]."""
    ranks = np.argwhere(np.ones_like(energy, dtype=bool)) + 1
    kept, parameters, macs = energy.ravel(), target.factor_parameters(ranks), target.factor_macs(ranks)
    order = np.lexsort((-kept, macs, parameters))
    order = order[(parameters[order] < target.parameters) & (macs[order] < target.macs)]
    best_before = np.maximum.accumulate(np.concatenate([[-1.0], kept[order]]))[:-1]
    return Frontier(
        target,
        energy.shape,
        tuple(
            Choice(tuple(int(rank) for rank in ranks[at]), float(kept[at]), int(parameters[at]), int(macs[at]))
            for at in order[kept[order] > best_before]
        ),
    )


def energy_for(amount: int, frontiers: Sequence[Frontier]) -> float:
    """Return the share of energy that, kept by every layer, takes away most nearly this number of parameters.

    The less energy is kept, the more goes. Where all that can go is less than the amount, that share is returned.
    """
    levels = sorted({choice.energy for frontier in frontiers for choice in frontier.choices}, reverse=True)

    def gone(index: int) -> int:
        return sum(frontier.target.parameters - frontier.parameters_at(levels[index]) for frontier in frontiers)

    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if gone(middle) >= amount:
            high = middle
        else:
            low = middle + 1
    around = [index for index in (low - 1, low) if index >= 0]
    return levels[min(around, key=lambda index: (abs(gone(index) - amount), index))]
