"""What a model chooses by the values of its inputs: an example shows some of the choices, others need the rest too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from plimsoll_job.load.inputs import Input, Signature, single
from plimsoll_job.techniques.prune.coupling import find_coupling
from plimsoll_job.techniques.prune.soundness import cut_soundly
from plimsoll_job.techniques.shape import Cut

BATCH = torch.arange(2)
#: What an answer is computed of, of six channels, or six times three, and a number of the sample.
CHOICES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "gathered": lambda rows, at: rows.gather(1, torch.stack([at, at, at], 1)),
    "indexed": lambda rows, at: rows.view(len(rows), 6, -1)[torch.arange(len(rows)), at],
    "selected": lambda rows, at: rows.view(len(rows), 6, -1).index_select(1, at[:1]).flatten(1),
    "masked": lambda rows, at: rows.view(len(rows), 6, -1)[nn.functional.one_hot(at, 6).bool()],
    "computed": lambda rows, at: rows.view(len(rows), 6, -1)[torch.arange(len(rows)), (at + 1).clamp(max=5)],
}


class Chooses(nn.Module):
    """It answers by those of its channels that an input names."""

    def __init__(self, choose: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], width: int) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(4, width), nn.Linear(3, 2)
        self.choose = choose

    def forward(self, rows: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.head(torch.relu(self.choose(self.hidden(rows), at)))
        return answers


def signature(at: list[int]) -> Signature:
    rows = np.random.default_rng(0).standard_normal((len(at), 4), dtype=np.float32)
    return (
        Input("rows", (4,), samples=rows),
        Input("at", (), "int64", values=6, samples=np.array(at, dtype=np.int64)),
    )


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("at", [[0, 0], [1, 4]])
def test_what_other_samples_would_choose_does_not_go(name: str, at: list[int]) -> None:
    """Those that the example did not choose went, and others were chosen in their place."""
    torch.manual_seed(0)
    module = Chooses(CHOICES[name], 6 if name == "gathered" else 18).eval()

    coupling = find_coupling(module, signature(at))

    gone = {channel for group in coupling.groups for unit in group.units for channel in unit}
    if name == "gathered":
        assert not gone
        assert coupling.reasons["hidden"] == "values of the inputs choose among them, at gather in the model"
    else:
        # Of each of the six the same may go.
        assert all(
            {channel % 3 for channel in unit} == {unit[0] % 3} for group in coupling.groups for unit in group.units
        )
        assert all(len(unit) == 6 for group in coupling.groups for unit in group.units)
        assert len(gone) in {0, 18}


class Counts(nn.Module):
    """Each of its channels is multiplied by a number of its own, which code counts up."""

    def __init__(self, numbers: Callable[[int], torch.Tensor], offset: float = 0) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(4, 8), nn.Linear(8, 2)
        self.numbers, self.offset = numbers, offset

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.hidden(rows))
        answers: torch.Tensor = self.head(hidden * self.numbers(hidden.shape[1])) + self.offset
        return answers


@pytest.mark.parametrize(
    "numbers",
    [torch.arange, lambda width: torch.linspace(1, 2, width), lambda width: torch.arange(width).float().cos()],
    ids=["arange", "linspace", "cosines"],
)
def test_channels_that_have_numbers_of_their_own_stay(numbers: Callable[[int], torch.Tensor]) -> None:
    """Beside an answer of 20,000 nobody saw that those behind the one that went had their neighbours' numbers."""
    torch.manual_seed(0)

    coupling = find_coupling(Counts(numbers, offset=20_000).eval(), single((4,)))

    assert not coupling.groups
    assert coupling.reasons["hidden"] == "they meet what stays, at mul in the model"


def test_a_constant_of_one_number_takes_any_width() -> None:
    torch.manual_seed(0)

    (group,) = find_coupling(Counts(lambda width: torch.full((width,), 0.5)).eval(), single((4,))).groups

    assert len(group.units) == 8


class Settles(nn.Module):
    """Computes until its answers are small enough, which takes as long as what its channels say."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.head(torch.relu(self.hidden(rows)))
        while answers.abs().max() > 0.05:
            answers = answers * 0.9
        return answers


def test_channels_by_whose_values_a_model_goes_on_stay() -> None:
    """Without some it computes more often, or less: that was told as a fault of Plimsoll."""
    torch.manual_seed(0)
    module, example = Settles().eval(), single((4,))
    coupling = find_coupling(module, example)

    verdicts = [cut_soundly(module, example, coupling, [Cut("hidden", (channel,))]) for channel in range(8)]

    reasons = {one.reason for one in verdicts if one.module is None}
    assert "the channels cannot be cut: the model computes otherwise without them" in reasons
