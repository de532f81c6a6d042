"""Hidden units of recurrent layers go, and what they read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.jobimage.bench import batches_of, samples_of
from tests.jobimage.planted import pruned
from torch import nn

from plimsoll_job.figures import count_parameters
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques.prune.compensation import compensate
from plimsoll_job.techniques.prune.coupling import cut, find_groups
from plimsoll_job.techniques.prune.redundancy import redundancy_scores
from plimsoll_job.techniques.shape import Cut


class Recurrent(nn.Module):
    """Steps that a recurrent layer reads, what it answers last, and the state that it begins with."""

    input_shape = (7, 6)

    def __init__(self, kind: type[nn.RNNBase], *, own_state: bool = False, hidden: int = 24, **options: Any) -> None:
        super().__init__()
        self.own_state, self.hidden = own_state, hidden
        both = 2 if options.get("bidirectional") else 1
        self.up, self.core = nn.Linear(6, 12), _made(kind, 12, hidden, options)
        self.head = nn.Linear(hidden * both, 3)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        state = (torch.zeros(1, len(steps), self.hidden),) if self.own_state else ()
        answers: torch.Tensor = self.head(self.core(self.up(steps).relu(), *state)[0][:, -1])
        return answers


RECURRENT: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "LSTM": (nn.LSTM, {}),
    "GRU": (nn.GRU, {}),
    "RNN": (nn.RNN, {}),
    "two layers": (nn.LSTM, {"num_layers": 2}),
    "both directions": (nn.GRU, {"bidirectional": True}),
    "its own state": (nn.GRU, {"own_state": True}),
}


@pytest.mark.parametrize("criterion", ["Magnitude", "Activation", "Taylor", "Redundancy"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_lose_hidden_units(name: str, criterion: str) -> None:
    kind, options = RECURRENT[name]
    torch.manual_seed(0)
    module = Recurrent(kind, **options).eval()
    applied = pruned(module, samples_of((7, 6), 64), "40%", criterion)
    left: Any = applied.candidate.module
    assert 1 - count_parameters(left) / count_parameters(module) == pytest.approx(0.4, abs=0.03)
    assert left.core.hidden_size < 24
    smaller = Recurrent(kind, hidden=left.core.hidden_size, **options).eval()
    smaller.up, smaller.core.input_size = nn.Linear(6, left.up.out_features), left.up.out_features
    smaller.core = _made(kind, left.up.out_features, left.core.hidden_size, options)
    smaller.load_state_dict(left.state_dict())
    steps = torch.randn(5, 7, 6)
    with torch.no_grad():
        torch.testing.assert_close(smaller.eval()(steps), left(steps))


def _made(kind: Any, width: int, hidden: int, options: dict[str, Any]) -> nn.RNNBase:
    own = {name: value for name, value in options.items() if name != "own_state"}
    layer: nn.RNNBase = kind(width, hidden, batch_first=True, **own)
    return layer


def test_a_hidden_unit_that_nobody_reads_goes_first_and_is_not_missed() -> None:
    torch.manual_seed(0)
    module = Recurrent(nn.LSTM).eval()
    with torch.no_grad():
        module.head.weight[:, 5] = 0
        module.core.get_parameter("weight_hh_l0")[:, 5] = 0
    applied = pruned(module, samples_of((7, 6), 64), "5%", "Activation")
    assert applied.candidate.changes
    less = cut(module, single((7, 6)), [Cut("core", (5,))])
    steps = torch.randn(5, 7, 6)
    with torch.no_grad():
        torch.testing.assert_close(less(steps), module(steps))


def test_what_a_recurrent_layer_reads_both_ways_is_refitted_both_ways() -> None:
    torch.manual_seed(0)
    module = Recurrent(nn.LSTM, bidirectional=True).eval()
    with torch.no_grad():
        module.up.weight[3], module.up.bias[3] = 2 * module.up.weight[5], 2 * module.up.bias[5]
    steps = torch.from_numpy(samples_of((7, 6), 64).inputs["inputs"])
    groups, one = find_groups(module, single((7, 6))), Cut("up", (3,))
    scores = redundancy_scores(module, groups, batches_of(steps))["up"]
    assert scores.argmin() in (3, 5)
    less: Any = cut(module, single((7, 6)), [one])
    compensate(module, less, groups, [one], batches_of(steps))
    others = torch.randn(8, 7, 6)
    with torch.no_grad():
        # At every step: of the way back the answers read the last alone.
        given, wanted = (one.core(one.up(others).relu())[0] for one in (less, module))
        torch.testing.assert_close(given, wanted, atol=1e-4, rtol=1e-3)
