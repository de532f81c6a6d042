"""Taylor scores are squared derivatives of the answers by a gate before each unit, and say so where there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.bench import batches_of, bench_of, samples_of
from tests.jobimage.huggingface import SIZES, TEXT, made
from tests.jobimage.modules import Flattened, Residual
from tests.jobimage.padded import Wrapped, padded_samples
from tests.jobimage.planted import built, pruned
from torch import nn

from plimsoll_api.spec import Prune
from plimsoll_job.errors import UserError
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import prune
from plimsoll_job.techniques.observe import Batches
from plimsoll_job.techniques.prune import gradients
from plimsoll_job.techniques.prune.coupling import find_groups
from plimsoll_job.techniques.prune.groups import ChannelGroup, parameters_of_channel
from plimsoll_job.techniques.prune.taylor import taylor_scores
from plimsoll_job.techniques.shape import Candidate

FIELD = "spec.steps[0].prune.criterion"
#: Of a gate, for a difference in the place of a derivative.
NEAR = 1e-5


def scores_of(module: nn.Module, shape: tuple[int, ...], inputs: torch.Tensor, seed: int = 0) -> dict[str, Any]:
    return taylor_scores(module, find_groups(module, single(shape)), batches_of(inputs), seed, FIELD)


@pytest.fixture
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one sample with one answer the sign does not matter."""
    monkeypatch.setattr(gradients, "AT_ONCE", 1)


def squares(module: nn.Module, gated: Callable[[float], torch.Tensor]) -> float:
    """Return the sum over samples of the squared difference quotient of the answers by a gate."""
    with torch.no_grad():
        return float(((gated(1 + NEAR) - gated(1 - NEAR)) / (2 * NEAR)).square().sum())


def assert_scores(module: nn.Module, group: ChannelGroup, score: Any, wanted: list[float]) -> None:
    """Each unit's squares count for each parameter that is saved with its channels."""
    saved = parameters_of_channel(dict(module.named_modules()), group) * group.unit
    found = [float(score[list(unit)].mean()) * saved for unit in group.units]
    assert max(wanted) > 1e-6
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-9)


class Net(nn.Module):
    """One answer; what several layers read, one of them all places at once, another by a transposed convolution."""

    input_shape = (2, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.plain, self.up, self.flat = nn.Conv2d(6, 3, 1), nn.ConvTranspose2d(6, 4, 2, 2), nn.Linear(96, 5)
        self.ends = nn.ModuleList([nn.Linear(width, 1) for width in (3, 4, 5)])

    def forward(self, images: torch.Tensor, gate: torch.Tensor | float = 1.0) -> torch.Tensor:
        read = self.first(images).sigmoid() * gate
        found = [self.plain(read).tanh().mean((2, 3)), self.up(read).tanh().mean((2, 3)), self.flat(read.flatten(1))]
        answers: torch.Tensor = sum(end(one.tanh()) for end, one in zip(self.ends, found, strict=True))
        return answers


@pytest.mark.usefixtures("_one_at_a_time")
def test_all_readers_of_a_channel_stand_behind_one_gate() -> None:
    torch.manual_seed(0)
    module, inputs = Net().eval().double(), torch.randn(10, 2, 4, 4, dtype=torch.float64)
    group = next(one for one in find_groups(Net().eval(), single((2, 4, 4))) if one.root == "first")
    assert {one.name for one in group.consumers} == {"plain", "up", "flat"}

    def gated(unit: int) -> Callable[[float], torch.Tensor]:
        gate = torch.ones(6, 1, 1, dtype=torch.float64)

        def answers(value: float) -> torch.Tensor:
            gate[unit] = value
            return module(inputs, gate)  # type: ignore[no-any-return]

        return answers

    score = taylor_scores(module, [group], batches_of(inputs), 0, FIELD)["first"]
    assert_scores(module, group, score, [squares(module, gated(unit)) for unit in range(6)])


class Steps(nn.Module):
    """A recurrent layer whose last answer counts."""

    input_shape = (5, 3)

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.core: nn.RNNBase = kind(3, 4, batch_first=True, **options)  # type: ignore[arg-type]
        self.head = nn.Linear(8 if options.get("bidirectional") else 4, 1)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.head(self.core(steps)[0].tanh().mean(1))
        return answers


def unrolled(module: Steps, steps: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Return what the module answers where all that is read of its hidden units goes through the gates."""
    core, below = module.core, [steps[:, at] for at in range(steps.shape[1])]
    gates = torch.cat([gate, gate]) if core.bidirectional else gate
    for layer in range(core.num_layers):
        sides = []
        for suffix in ("", "_reverse")[: 2 if core.bidirectional else 1]:
            weights = [core.get_parameter(f"{name}_l{layer}{suffix}") for name in ("weight_ih", "weight_hh")]
            biases = [core.get_parameter(f"{name}_l{layer}{suffix}") for name in ("bias_ih", "bias_hh")]
            hidden = cell = torch.zeros(len(steps), core.hidden_size, dtype=steps.dtype)
            told = []
            for given in reversed(below) if suffix else below:
                by_input = given @ weights[0].T + biases[0]
                by_state = (hidden * gate) @ weights[1].T + biases[1]
                if core.mode == "LSTM":
                    enter, forget, new, leave = (by_input + by_state).chunk(4, -1)
                    cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
                    hidden = leave.sigmoid() * cell.tanh()
                elif core.mode == "GRU":
                    (reset, keep, new), (more, most, last) = by_input.chunk(3, -1), by_state.chunk(3, -1)
                    keep = (keep + most).sigmoid()
                    hidden = (1 - keep) * (new + (reset + more).sigmoid() * last).tanh() + keep * hidden
                else:
                    hidden = (by_input + by_state).tanh()
                told.append(hidden)
            sides.append(told[::-1] if suffix else told)
        written = [torch.cat(one, -1) for one in zip(*sides, strict=True)]
        below = [one * gates for one in written]
    answers: torch.Tensor = module.head((torch.stack(written, 1).tanh() * gates).mean(1))
    return answers


@pytest.mark.usefixtures("_one_at_a_time")
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_what_recurrent_layers_read_of_their_own_units_counts(kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = Steps(kind, **options).eval()
    (group,) = find_groups(module, single((5, 3)))
    module.double()
    steps = torch.randn(6, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(unrolled(module, steps, torch.ones(4, dtype=torch.float64)), module(steps))

    def gated(unit: int) -> Callable[[float], torch.Tensor]:
        gate = torch.ones(4, dtype=torch.float64)

        def answers(value: float) -> torch.Tensor:
            gate[unit] = value
            return unrolled(module, steps, gate)

        return answers

    score = taylor_scores(module, [group], batches_of(steps), 0, FIELD)["core"]
    assert_scores(module, group, score, [squares(module, gated(unit)) for unit in range(4)])


class Attends(nn.Module):
    """Attention of two heads, one answer; `gates` stand before what reads the heads."""

    input_shape = (3, 8)

    def __init__(self) -> None:
        super().__init__()
        self.ask, self.offer, self.hold = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out, self.head = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, rows: torch.Tensor, gates: torch.Tensor | float = 1.0) -> torch.Tensor:
        asked, offered, held = (
            layer(rows).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.ask, self.offer, self.hold)
        )
        mixed = (asked @ offered.transpose(-1, -2)).softmax(-1) @ held * gates
        answers: torch.Tensor = self.head((rows + self.out(mixed.transpose(1, 2).flatten(2))).tanh()).mean(1)
        return answers


@pytest.mark.usefixtures("_one_at_a_time")
def test_a_head_stands_behind_one_gate() -> None:
    torch.manual_seed(0)
    module, rows = Attends().eval(), torch.randn(10, 3, 8, dtype=torch.float64)
    group = next(one for one in find_groups(module, single((3, 8))) if one.of_heads)
    module.double()

    def gated(head: int) -> Callable[[float], torch.Tensor]:
        gates = torch.ones(2, 1, 1, dtype=torch.float64)

        def answers(value: float) -> torch.Tensor:
            gates[head] = value
            return module(rows, gates)  # type: ignore[no-any-return]

        return answers

    score = taylor_scores(module, [group], batches_of(rows), 0, FIELD)[group.root]
    assert_scores(module, group, score, [squares(module, gated(head)) for head in range(2)])


class Tied(nn.Module):
    """Two layers of one weight, each of which reads the same channels."""

    input_shape = (6,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.other = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.other.weight = self.one.weight
        self.head = nn.Linear(5, 1)

    def forward(self, rows: torch.Tensor, gates: torch.Tensor | float = 1.0) -> torch.Tensor:
        read = self.first(rows).tanh()
        answers: torch.Tensor = self.head((self.one(read * gates) * self.other((read + 1).square() * gates)).tanh())
        return answers


@pytest.mark.usefixtures("_one_at_a_time")
def test_what_layers_share_is_read_by_each_of_them_once() -> None:
    torch.manual_seed(0)
    module, rows = Tied().eval(), torch.randn(10, 6, dtype=torch.float64)
    group = next(one for one in find_groups(module, single((6,))) if one.root == "first")
    module.double()

    def gated(unit: int) -> Callable[[float], torch.Tensor]:
        gates = torch.ones(5, dtype=torch.float64)

        def answers(value: float) -> torch.Tensor:
            gates[unit] = value
            return module(rows, gates)  # type: ignore[no-any-return]

        return answers

    score = taylor_scores(module, [group], batches_of(rows), 0, FIELD)["first"]
    assert_scores(module, group, score, [squares(module, gated(unit)) for unit in range(5)])


def test_over_the_signs_the_mean_is_the_sum_over_samples_and_answers() -> None:
    module = built(Flattened).double()
    inputs = torch.randn(4, 1, 4, 4, dtype=torch.float64)
    group = next(one for one in find_groups(built(Flattened), single((1, 4, 4))) if one.root == "hidden")
    weight = module.get_parameter("head.weight")
    with torch.no_grad():
        read = torch.relu(module.get_submodule("hidden")(torch.relu(
            nn.functional.max_pool2d(module.get_submodule("conv")(inputs), 2)).flatten(1)))  # fmt: skip
        wanted = read.square().sum(0) * weight.square().sum(0)
    drawn = [taylor_scores(module, [group], batches_of(inputs), seed, FIELD)["hidden"] for seed in range(400)]
    saved = parameters_of_channel(dict(module.named_modules()), group)
    assert np.mean(drawn, axis=0) * saved == pytest.approx(wanted.numpy(), rel=0.3)


def test_the_seed_decides_and_nothing_of_the_module_changes() -> None:
    module, inputs = built(Residual), torch.randn(30, 3, 8, 8)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad():
        one, same, other = (scores_of(module, (3, 8, 8), inputs, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[root], same[root]) for root in one)
    assert not all(np.array_equal(one[root], other[root]) for root in one)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in module.parameters())


def test_of_answers_to_tokens_those_that_count_decide() -> None:
    """And whatever stands where nothing counts is not seen."""
    module, samples = Wrapped(made("Bert", "ForTokenClassification", **SIZES)), padded_samples(24)
    groups = find_groups(module, TEXT)
    ids, mask = samples.inputs.values()
    others = np.where(mask == 1, ids, np.random.default_rng(5).integers(3, 50, ids.shape))
    whole = taylor_scores(module, groups, Batches.of(samples), 0, FIELD)
    assert min(score.max() for score in whole.values()) > 0
    padded = type(samples)({"input_ids": others, "attention_mask": mask}, None, "")
    for root, score in taylor_scores(module, groups, Batches.of(padded), 0, FIELD).items():
        assert score == pytest.approx(whole[root], rel=1e-4)
    # Where every token counts, the answers to padded ones do as well.
    tensors = tuple(torch.from_numpy(one) for one in (ids, mask))
    counted = taylor_scores(module, groups, Batches(lambda: [tensors]), 0, FIELD)
    assert any(counted[root] != pytest.approx(whole[root], rel=0.01) for root in whole)


class Between(nn.Module):
    """Two layers with something between them."""

    input_shape = (6,)

    def __init__(self, do: Callable[[torch.Tensor], torch.Tensor], end: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.do, self.end = do, end

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.end(self.last(self.do(self.middle(self.first(rows).relu()))))


def without_gradient(rows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return rows * 2


def as_it_is(answers: torch.Tensor) -> torch.Tensor:
    return answers


@pytest.mark.parametrize(
    ("do", "end", "says"),
    [
        (torch.relu, lambda answers: (answers > 0).long(), r"of torch.int64; let the model answer scores"),
        (torch.round, as_it_is, r"no gradient by what middle reads: they end at .*round in the model"),
        (torch.sign, as_it_is, r"they end at .*sign in the model"),
        (torch.Tensor.detach, as_it_is, r"no gradient by what middle reads: they end at Tensor.detach in the model"),
        (without_gradient, as_it_is, r"they end at .*mul.* in the model"),
        (torch.relu, torch.Tensor.detach, r"they have no gradient: they end at Tensor.detach in the model"),
        (lambda rows: torch.igamma(rows.exp(), torch.ones(8)), as_it_is, r"igamma: input.* not implemented"),
    ],
    ids=["integers", "round", "sign", "detach", "no_grad", "all detached", "no derivative"],
)
def test_a_model_that_cannot_be_derived_is_refused_by_name(
    do: Callable[[torch.Tensor], torch.Tensor], end: Callable[[torch.Tensor], torch.Tensor], says: str
) -> None:
    torch.manual_seed(0)
    module = Between(do, end).eval()
    groups = find_groups(Between(torch.relu, as_it_is).eval(), single((6,)))
    with pytest.raises(UserError, match=says) as told:
        taylor_scores(module, groups, batches_of(torch.randn(12, 6) * 3), 0, FIELD)
    assert str(told.value).startswith(f"{FIELD}: ")


def test_gradients_that_are_not_finite_are_told() -> None:
    torch.manual_seed(0)
    module = Between(lambda rows: (rows - rows).abs().sqrt(), as_it_is).eval()
    groups = find_groups(Between(torch.relu, as_it_is).eval(), single((6,)))
    with pytest.raises(UserError, match="their gradient by what middle reads is not finite"):
        taylor_scores(module, groups, batches_of(torch.randn(12, 6)), 0, FIELD)


def test_what_the_answers_do_not_depend_on_costs_nothing() -> None:
    torch.manual_seed(0)
    module = Between(lambda rows: rows * 0, as_it_is).eval()
    scores = scores_of(module, (6,), torch.randn(12, 6))
    assert scores["first"].tolist() == [0.0] * 8


@pytest.mark.parametrize("how", [{"of": "Macs"}, {"of": "Bytes"}, {"allocation": "Sensitivity"}, {"iterations": 3}])
def test_the_step_meets_its_amount_however_it_is_told(how: dict[str, Any]) -> None:
    module, samples = built(Residual), samples_of((3, 8, 8), 40)
    settings = Prune.model_validate({"criterion": "Taylor", "amount": "40%"} | how)
    applied = prune.apply(settings, Candidate(module), bench_of(built(Residual), calibration=samples))
    assert applied.details["share"] == pytest.approx(0.4, abs=0.011)
    again = prune.apply(settings, Candidate(built(Residual)), bench_of(built(Residual), calibration=samples))
    assert again.candidate.fingerprint() == applied.candidate.fingerprint()
    assert pruned(built(Residual), samples, "40%", "Magnitude").candidate.changes != applied.candidate.changes
