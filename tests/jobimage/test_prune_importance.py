"""Scores rest on every batch alike, and belong to the right channels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.bench import batches_of
from tests.jobimage.modules import Flattened, Residual
from torch import nn

from plimsoll_api.spec import ActivationStatistic
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques.prune.coupling import find_groups
from plimsoll_job.techniques.prune.importance import activation_scores, magnitude_scores
from plimsoll_job.techniques.prune.statistics import InputStatistic
from plimsoll_job.zoo import wine_mlp


@pytest.mark.parametrize("statistic", ActivationStatistic)
@pytest.mark.parametrize("batch_size", [1, 7, 40, 100])
def test_streaming_over_batches_equals_the_whole(batch_size: int, statistic: ActivationStatistic) -> None:
    module, inputs = Residual().eval(), torch.randn(100, 3, 8, 8)
    groups = find_groups(module, single((3, 8, 8)))
    whole = activation_scores(module, groups, batches_of(inputs), statistic)
    streamed = activation_scores(module, groups, batches_of(*torch.split(inputs, batch_size)), statistic)
    for root, scores in whole.items():
        assert np.allclose(streamed[root], scores, rtol=1e-5)


def test_the_last_batch_does_not_decide_alone() -> None:
    statistic = InputStatistic(nn.Linear(2, 1))
    for _ in range(9):
        statistic.add(torch.tensor([[1.0, 0.0]]))
    statistic.add(torch.tensor([[0.0, 1.0]]))
    assert statistic.mean.tolist() == pytest.approx([0.9, 0.1])


def test_a_short_last_batch_weighs_by_its_samples() -> None:
    statistic = InputStatistic(nn.Conv2d(1, 1, 1))
    statistic.add(torch.full((3, 1, 2, 2), -1.0))
    statistic.add(torch.full((1, 1, 2, 2), 5.0))
    assert statistic.mean.tolist() == [2.0]


def test_sums_are_kept_in_double_precision() -> None:
    statistic = InputStatistic(nn.Linear(1, 1))
    statistic.add(torch.full((1, 1), 2.0**24))
    for _ in range(100):
        statistic.add(torch.ones(1, 1))
    assert statistic.mean[0] == (2.0**24 + 100) / 101


def test_features_of_a_flattened_channel_count_for_that_channel() -> None:
    torch.manual_seed(0)
    module = Flattened().eval()
    with torch.no_grad():
        module.conv.weight[3], module.conv.bias[3] = 0.0, 0.0  # type: ignore[index]
    scores = activation_scores(module, find_groups(module, single((1, 4, 4))), batches_of(torch.rand(16, 1, 4, 4)))
    assert scores["conv"][3] == 0
    assert (np.delete(scores["conv"], 3) > 0).all()


def test_the_norm_of_a_channel_sums_over_all_that_goes_with_it() -> None:
    first, last = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
    module = nn.Sequential(first, nn.ReLU(), last)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
        last.weight.copy_(torch.tensor([[4.0, 5.0]]))
    scores = magnitude_scores(module, find_groups(module, single((2,))))
    assert scores["0"].tolist() == [1.0, 1.0]  # sqrt(9 + 16) and sqrt(25), each over their mean


def test_wanda_of_a_channel_is_the_weights_that_read_it_times_its_norm() -> None:
    first, last = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    module = nn.Sequential(first, last)
    with torch.no_grad():
        first.weight.copy_(torch.eye(2))
        last.weight.copy_(torch.tensor([[4.0, -1.0], [-2.0, 1.0]]))
    inputs = torch.tensor([[1.0, 3.0], [-1.0, 3.0]])
    scores = activation_scores(module, find_groups(module, single((2,))), batches_of(inputs), ActivationStatistic.WANDA)
    assert scores["0"].tolist() == pytest.approx([1.0, 1.0])  # (4 + 2) · 1 and (1 + 1) · 3, each over their mean


def test_each_group_has_the_mean_one() -> None:
    module = wine_mlp().eval()
    for scores in (
        magnitude_scores(module, find_groups(module, single((13,)))),
        activation_scores(module, find_groups(module, single((13,))), batches_of(torch.randn(8, 13))),
    ):
        assert [float(values.mean()) for values in scores.values()] == pytest.approx([1.0, 1.0])


class Read(nn.Module):
    """What one layer writes and another of any kind reads."""

    def __init__(self, written: nn.Module, reads: nn.Module, seen: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.written, self.reads, self.seen = written, reads, seen

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answers = self.reads(self.seen(self.written(inputs).relu()))
        answers = answers[0] if isinstance(answers, tuple) else answers
        total: torch.Tensor = answers.flatten(1).sum(1, keepdim=True)
        return total


def as_it_is(values: torch.Tensor) -> torch.Tensor:
    return values


def turned(values: torch.Tensor) -> torch.Tensor:
    return values.transpose(0, 1)


PIXELS, STEPS = (2, 6, 6), (5, 3)
#: What writes, what reads, how it is seen on the way, and by channel the weights that read it, one after the other.
READ: dict[str, tuple[tuple[int, ...], Callable[[], tuple[nn.Module, nn.Module]], Any, list[tuple[str, int]]]] = {
    "convolution": (PIXELS, lambda: (nn.Conv2d(2, 6, 1), nn.Conv2d(6, 4, 3, 2)), as_it_is, [("weight", 1)]),
    "transposed": (PIXELS, lambda: (nn.Conv2d(2, 6, 1), nn.ConvTranspose2d(6, 4, 3, 2)), as_it_is, [("weight", 0)]),
    "LSTM": (
        STEPS, lambda: (nn.Linear(3, 6), nn.LSTM(6, 4, batch_first=True)), as_it_is, [("weight_ih_l0", 1)]
    ),
    "GRU, steps first": (STEPS, lambda: (nn.Linear(3, 6), nn.GRU(6, 4)), turned, [("weight_ih_l0", 1)]),
    "RNN of two layers": (
        STEPS, lambda: (nn.Linear(3, 6), nn.RNN(6, 4, 2, batch_first=True)), as_it_is, [("weight_ih_l0", 1)]
    ),
    "both ways": (
        STEPS, lambda: (nn.Linear(3, 6), nn.LSTM(6, 4, batch_first=True, bidirectional=True)), as_it_is,
        [("weight_ih_l0", 1), ("weight_ih_l0_reverse", 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("statistic", ActivationStatistic)
@pytest.mark.parametrize("kind", READ)
def test_scores_are_what_the_definition_says_of_what_any_layer_reads(kind: str, statistic: ActivationStatistic) -> None:
    shape, build, seen, weights = READ[kind]
    torch.manual_seed(0)
    module = Read(*build(), seen).eval()
    inputs = torch.randn(9, *shape)
    groups = [one for one in find_groups(module, single(shape)) if one.root == "written"]
    found = activation_scores(module, groups, batches_of(*torch.split(inputs, 4)), statistic)["written"]
    wanted = []
    with torch.no_grad():
        read = module.written(inputs).relu().movedim(1 if len(shape) == 3 else -1, 0)
        for channel, values in enumerate(read):
            reads = sum(
                float(module.reads.get_parameter(name).select(axis, channel).abs().sum()) for name, axis in weights
            )
            wanted.append({
                ActivationStatistic.MEAN_ABSOLUTE: float(values.abs().mean()),
                ActivationStatistic.ZERO_SHARE: float((values != 0).float().mean()),
                ActivationStatistic.WANDA: reads * float(values.square().mean()) ** 0.5,
            }[statistic])  # fmt: skip
    assert found == pytest.approx(np.array(wanted) / np.mean(wanted), rel=1e-4)
