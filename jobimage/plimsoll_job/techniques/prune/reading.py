"""What products read of channels that go: values on the way, which tell of a cut where all answers are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from plimsoll_job.techniques.prune.groups import Coupling, Gone
from plimsoll_job.techniques.prune.labels import Held
from plimsoll_job.techniques.prune.left import left_positions

#: Operations that sum over what they read. Elsewhere what is computed of channels may be laid out anyhow.
PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution", "linear"})

#: Takes in what the operation of a number answered.
Hear = Callable[[int, Sequence[torch.Tensor]], None]


def products_of(coupling: Coupling, gone: Gone) -> frozenset[int]:
    """Return the numbers of the operations that sum over channels of these classes."""
    return frozenset(
        number
        for number, call in enumerate(coupling.flow.calls)
        if call.name in PRODUCTS and _gone_of(call.inputs, gone) - _gone_of(call.outputs, gone)
    )


class Reading:
    """Keeps what these operations answer in a run, of a module or of what is left of it."""

    def __init__(self, numbers: frozenset[int]) -> None:
        self.numbers = numbers
        self.values: dict[int, torch.Tensor] = {}

    def __call__(self, number: int, outputs: Sequence[torch.Tensor]) -> None:
        """Keep the output of one of the operations: what follows may change it in place."""
        if number in self.numbers and outputs:
            self.values[number] = outputs[0].detach().clone()

    def left(self, coupling: Coupling, gone: Gone) -> list[torch.Tensor]:
        """Return what was kept, in the order of the operations, without the channels of these classes."""
        calls = coupling.flow.calls
        return [_left_of(value, calls[number].outputs[0][1], gone) for number, value in sorted(self.values.items())]


def _left_of(value: torch.Tensor, held: Held, gone: Gone) -> torch.Tensor:
    for axis, positions in left_positions(held, gone).items():
        value = value.index_select(axis, positions)
    return value


def _gone_of(tensors: Sequence[tuple[Sequence[int], Held]], gone: Gone) -> set[int]:
    found: set[int] = set()
    for _, held in tensors:
        for labels in held.labels:
            atoms = np.unique(labels.numpy())
            found.update(atoms[gone[atoms]].tolist())
    return found
