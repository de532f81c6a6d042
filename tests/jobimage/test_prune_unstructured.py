"""Single weights are set to zero: the least important ones, among those that the scope says, or N of each M."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from tests.jobimage.bench import bench_of, candidate_of, samples_of
from tests.jobimage.modules import Flattened, Grouped, PlainCNN
from torch import nn

from plimsoll_api.spec import Distill, Prune
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count, count_parameters
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import distill, prune
from plimsoll_job.techniques.prune.sparsity import keep_largest, keep_largest_of_all, keep_pattern, keep_share
from plimsoll_job.techniques.shape import Applied
from plimsoll_job.zoo import wine_mlp

WANDA = {"criterion": "Activation", "statistic": "Wanda"}


def settings(amount: str, criterion: str = "Magnitude", granularity: str = "Unstructured", **more: str) -> Prune:
    return Prune.model_validate({"criterion": criterion, "granularity": granularity, "amount": amount} | more)


def applied(module: nn.Module, **value: Any) -> Applied:
    shape: tuple[int, ...] = module.input_shape  # type: ignore[assignment]
    bench = bench_of(module, calibration=samples_of(shape, 64))
    return prune.apply(Prune.model_validate({"granularity": "Unstructured"} | value), candidate_of(module), bench)


def test_the_largest_stay_and_equal_ones_fall_by_their_place() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 1.0], [5.0, 5.0, 5.0, 5.0]])
    assert keep_largest(scores, torch.tensor([1, 3])).tolist() == [
        [True, False, True, True],
        [False, False, False, True],
    ]


@pytest.mark.parametrize(("rows", "columns", "share"), [(10, 9, 0.5), (64, 13, 0.3), (3, 5, 0.99), (7, 1, 0.5)])
def test_every_row_gives_its_share_and_all_of_them_the_whole(rows: int, columns: int, share: float) -> None:
    dropped = (~keep_share(torch.rand(rows, columns), share)).sum(dim=1)
    assert (dropped - columns * share).abs().max() <= 1
    assert int(dropped.sum()) == round(rows * columns * share)


@pytest.mark.parametrize("dropped", [0, 1, 7, 40, 99, 150])
def test_the_largest_of_several_tensors_stay_as_if_they_were_one(dropped: int) -> None:
    torch.manual_seed(0)
    # Of few different numbers, many of them zero: what is equal goes by its place, over the ends of tensors.
    scores = [(torch.rand(shape) * 8).floor().div(4).double() for shape in ((5, 10), (10, 3, 2), (40,))]
    for some in (scores, [torch.rand(50), torch.rand(10, 10)], [torch.rand(30) * 1e-40, torch.rand(120) * 1e30]):
        together = torch.cat([one.flatten() for one in some])
        expected = keep_largest(together[None], torch.tensor([dropped]))[0]
        kept = torch.cat([one.flatten() for one in keep_largest_of_all(partial(iter, some), dropped)])
        assert torch.equal(kept, expected)


def test_of_each_four_neighbours_the_two_largest_stay_at_every_place_of_the_kernel() -> None:
    scores = torch.rand(5, 8, 3, 3)
    keep = keep_pattern(scores, 2, 4)
    for output, first, row, column in ((0, 0, 0, 0), (4, 4, 2, 1)):
        four = scores[output, first : first + 4, row, column]
        stay = keep[output, first : first + 4, row, column]
        assert set(four[stay].tolist()) == set(four.sort().values[2:].tolist())
    assert (keep.sum(dim=1) == 4).all()


@pytest.mark.parametrize("scope", ["Layer", "Output"])
def test_each_layer_gives_the_same_share_or_each_output_of_it(scope: str) -> None:
    module = wine_mlp().eval()
    done = applied(module, criterion="Magnitude", amount="40%", scope=scope)
    share = 0.4 * count_parameters(module) / sum(module.get_parameter(name).numel() for name in done.candidate.sparse)
    for name in done.candidate.sparse:
        before, after = module.get_parameter(name), done.candidate.module.get_parameter(name)
        assert float((after == 0).float().mean()) == pytest.approx(share, abs=0.01)
        if scope == "Output":
            assert ((after == 0).sum(dim=1) - share * after.shape[1]).abs().max() <= 1
            assert all(
                old[new == 0].abs().max() <= old[new != 0].abs().min() for old, new in zip(before, after, strict=True)
            )
    assert done.details["share"] == pytest.approx(0.4, abs=0.001)


def test_over_the_whole_model_layers_of_small_weights_give_more() -> None:
    module = wine_mlp().eval()
    with torch.no_grad():
        module.get_parameter("layers.3.weight").mul_(0.01)
    zeros = {
        scope: applied(module, criterion="Magnitude", amount="40%", scope=scope).details["zeros"]
        for scope in ("Global", "Layer")
    }
    assert zeros["Global"]["layers.1"] < 0.1
    assert zeros["Layer"]["layers.1"] > 0.4


@pytest.mark.parametrize("criterion", [{"criterion": "Magnitude"}, WANDA])
@pytest.mark.parametrize(("pattern", "kept", "of"), [("2:4", 2, 4), ("1:4", 1, 4), ("3:4", 3, 4), ("1:2", 1, 2)])
def test_a_pattern_holds_everywhere_it_fits(pattern: str, kept: int, of: int, criterion: dict[str, str]) -> None:
    module = PlainCNN().eval()
    done = applied(module, granularity="NofM", pattern=pattern, **criterion)
    # The first convolution reads three channels.
    assert done.candidate.sparse == {"body.3.weight", "body.7.weight", "body.10.weight"}
    for name in done.candidate.sparse:
        weight = done.candidate.module.get_parameter(name).movedim(1, -1).reshape(-1, of)
        assert ((weight != 0).sum(dim=1) == kept).all()
    assert [one.layer for one in done.left] == ["body.0"]
    assert "does not divide what it reads" in done.left[0].reason
    assert "latency stay as they are" in done.notes[0]


def test_a_pattern_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(UserError, match=r"prune.pattern: no layer reads a multiple of 99 inputs, so 2:99 fits none"):
        applied(wine_mlp().eval(), criterion="Magnitude", granularity="NofM", pattern="2:99")


def test_a_pattern_that_holds_already_is_refused() -> None:
    module = wine_mlp().eval()
    pruned = applied(module, criterion="Magnitude", granularity="NofM", pattern="2:4").candidate.module
    pruned.input_shape = (13,)  # type: ignore[assignment]
    with pytest.raises(UserError, match="zero already; nothing would change"):
        applied(pruned, criterion="Magnitude", granularity="NofM", pattern="2:4")


def test_wanda_weighs_by_the_norm_of_what_a_weight_multiplies() -> None:
    module = nn.Sequential(nn.Linear(4, 3, bias=False)).eval()
    module.input_shape = (4,)  # type: ignore[assignment]
    samples = samples_of((4,), 500)
    samples.inputs["inputs"][:] *= [0.01, 1.0, 1.0, 10.0]
    by_wanda = Prune.model_validate(WANDA | {"granularity": "Unstructured", "amount": "50%"})
    pruned = prune.apply(by_wanda, candidate_of(module), bench_of(module, calibration=samples)).candidate.module
    weight = module.get_parameter("0.weight").abs()
    norms = torch.from_numpy(samples.inputs["inputs"]).square().sum(dim=0).sqrt()
    for output in range(3):
        expected = set((weight[output] * norms).argsort()[:2].tolist())
        assert set((pruned.get_parameter("0.weight")[output] == 0).nonzero().flatten().tolist()) == expected


@pytest.mark.parametrize("more", [{"amount": "50%"}, {"granularity": "NofM", "pattern": "2:4"}])
def test_where_channels_differ_in_size_wanda_answers_nearer_than_magnitude(more: dict[str, str]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 8)).eval()
    module.input_shape = (64,)  # type: ignore[assignment]
    samples = samples_of((64,), 256)
    samples.inputs["inputs"][:, ::2] *= 0.01
    inputs = torch.from_numpy(samples.inputs["inputs"])

    def error(criterion: dict[str, str]) -> float:
        ordered = Prune.model_validate({"granularity": "Unstructured"} | criterion | more)
        pruned = prune.apply(ordered, candidate_of(module), bench_of(module, calibration=samples)).candidate.module
        return float((pruned(inputs) - module(inputs)).detach().square().mean())

    assert error(WANDA) < 0.1 * error({"criterion": "Magnitude"})


def test_wanda_reaches_the_channels_of_each_group_of_a_convolution() -> None:
    module = Grouped().eval()
    with torch.no_grad():
        module.first.weight[5], module.first.bias[5] = 0.0, 0.0  # type: ignore[index]
    pruned = applied(module, amount="30%", **WANDA).candidate.module
    # Channel 5 is the second that the second group reads.
    assert (pruned.get_parameter("grouped.weight")[4:, 1] == 0).all()
    assert (pruned.get_parameter("grouped.weight")[:4, 1] != 0).any()


def test_what_is_zero_stays_zero_in_training() -> None:
    module = wine_mlp().eval()
    candidate = applied(module, criterion="Magnitude", granularity="NofM", pattern="2:4").candidate
    pruned = copy.deepcopy(candidate.module)
    bench = bench_of(module, train=samples_of((13,), 40))
    trained = distill.apply(Distill.model_validate({"epochs": 2}), candidate, bench).candidate.module
    for name in candidate.sparse:
        assert torch.equal(trained.get_parameter(name) == 0, pruned.get_parameter(name) == 0)
    assert not torch.equal(trained.get_parameter("layers.3.weight"), pruned.get_parameter("layers.3.weight"))


def test_the_record_tells_the_zeros_of_each_layer_and_a_digest_of_their_places() -> None:
    module = Flattened().eval()
    first, again, other = (
        applied(module, criterion="Magnitude", amount=amount).details for amount in ("40%", "40%", "41%")
    )
    assert first["zeros"].keys() == {"conv", "hidden", "head"}
    assert first["maskDigest"] == again["maskDigest"] != other["maskDigest"]


def test_unstructured_pruning_zeroes_the_smallest_weights_of_the_whole_model() -> None:
    module = wine_mlp().eval()
    applied = prune.apply(settings("40%", "Magnitude", "Unstructured"), candidate_of(module), bench_of(module))
    pruned = applied.candidate.module
    names = sorted(applied.candidate.sparse)
    assert names == ["layers.1.weight", "layers.3.weight", "layers.5.weight"]
    before = torch.cat([module.get_parameter(name).flatten() for name in names])
    after = torch.cat([pruned.get_parameter(name).flatten() for name in names])
    assert int((after == 0).sum()) == round(0.4 * count_parameters(module))
    assert before[after == 0].abs().max() <= before[after != 0].abs().min()
    assert torch.equal(before[after != 0], after[after != 0])
    assert count(pruned, single((13,))).parameters == count_parameters(module)
    assert "latency stay as they are" in applied.notes[0]


def test_unstructured_pruning_of_what_is_zero_already_is_refused() -> None:
    module = wine_mlp().eval()
    half = settings("50%", "Magnitude", "Unstructured")
    once = prune.apply(half, candidate_of(module), bench_of(module)).candidate
    with pytest.raises(UserError, match=r"50\.0% of the parameters are zero already; nothing would change"):
        prune.apply(half, once, bench_of(module))
