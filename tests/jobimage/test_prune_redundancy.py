"""What others can stand in for goes first."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from tests.jobimage.bench import batches_of, bench_of, candidate_of, samples_of
from tests.jobimage.learned import SmallDigits, accuracy, learned
from tests.jobimage.learned import digits as digits_of
from tests.jobimage.modules import DepthwiseSeparable, Flattened, MixedMLP, PlainCNN, Residual
from tests.jobimage.planted import built, copy_channel, pruned
from torch import nn

from plimsoll_api.spec import Prune
from plimsoll_job.errors import UserError
from plimsoll_job.examples.digits import CALIBRATION_SAMPLES, TRAIN_SAMPLES, load_images, train_baseline, with_shifts
from plimsoll_job.figures import count_parameters
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import moments, prune
from plimsoll_job.techniques.prune.compensation import compensate
from plimsoll_job.techniques.prune.coupling import cut, find_groups
from plimsoll_job.techniques.prune.redundancy import STRETCH, _delete_one_by_one, _Reading, redundancy_scores
from plimsoll_job.techniques.shape import Cut

#: Claims about quality stand on several seeds, since what one of them comes to differs between processors.
SEEDS = range(3)


def refitted(module: nn.Module, shape: tuple[int, ...], inputs: torch.Tensor, one: Cut) -> nn.Module:
    less = cut(module, single(shape), [one])
    compensate(module, less, find_groups(module, single(shape)), [one], batches_of(*torch.split(inputs, 16)))
    return less


PLANTED: list[tuple[type[nn.Module], list[str], str]] = [
    (PlainCNN, ["body.0", "body.1"], "body.0"),
    (PlainCNN, ["body.3", "body.4"], "body.3"),
    (Flattened, ["conv"], "conv"),
    (Flattened, ["hidden"], "hidden"),
    (Residual, ["inner.0", "inner.1"], "inner.0"),
    (DepthwiseSeparable, ["first", "depthwise"], "first"),
]


@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize(("build", "layers", "root"), PLANTED)
def test_a_channel_that_repeats_another_goes_first_and_is_not_missed(
    build: type[nn.Module], layers: list[str], root: str, factor: float
) -> None:
    module = built(build)
    shape: tuple[int, ...] = module.input_shape  # type: ignore[assignment]
    copy_channel(module, layers, source=1, target=4, factor=factor)
    inputs = torch.from_numpy(samples_of(shape, 64).inputs["inputs"])
    scores = redundancy_scores(module, find_groups(module, single(shape)), batches_of(inputs))[root]
    first = 1 if scores[1] < scores[4] else 4
    assert scores[first] < 1e-3 * scores.mean(where=scores < float("inf"))
    with torch.no_grad():
        less = refitted(module, shape, inputs, Cut(root, (first,)))
        plain = cut(module, single(shape), [Cut(root, (first,))])
        others = torch.from_numpy(samples_of(shape, 32, seed=1).inputs["inputs"])
        assert torch.allclose(less(others), module(others), atol=1e-4)
        assert not torch.allclose(plain(others), module(others), atol=1e-3)


def test_a_linear_combination_of_channels_goes_first_and_is_not_missed() -> None:
    module = built(MixedMLP)
    with torch.no_grad():
        first = module.get_submodule("mix")
        assert isinstance(first, nn.Linear)
        first.weight[5] = 0.5 * first.weight[0] - 2 * first.weight[1] + first.weight[2]
        first.bias[5] = 0.5 * first.bias[0] - 2 * first.bias[1] + first.bias[2] + 3
    inputs = torch.from_numpy(samples_of((6,), 64).inputs["inputs"])
    scores = redundancy_scores(module, find_groups(module, single((6,))), batches_of(inputs))["mix"]
    assert scores[[0, 1, 2, 5]].min() == scores.min() < 1e-4 * scores[3]
    less = refitted(module, (6,), inputs, Cut("mix", (5,)))
    assert torch.allclose(less(inputs), module(inputs), atol=1e-4)


def test_duplicates_leave_the_model_all_at_once_through_the_step() -> None:
    module = built(PlainCNN)
    for target in range(4, 12):
        copy_channel(module, ["body.0", "body.1"], source=target % 4, target=target)
        copy_channel(module, ["body.3", "body.4"], source=target % 4, target=target)
    samples = samples_of((3, 8, 8), 64)
    applied = pruned(module, samples, "74%")
    inputs = torch.from_numpy(samples.inputs["inputs"])
    assert count_parameters(applied.candidate.module) < 0.27 * count_parameters(module)
    assert torch.allclose(applied.candidate.module(inputs), module(inputs), atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 40, 100])
def test_streaming_over_batches_equals_the_whole(batch_size: int) -> None:
    module, inputs = built(Residual), torch.randn(100, 3, 8, 8)
    groups = find_groups(module, single((3, 8, 8)))
    whole = redundancy_scores(module, groups, batches_of(inputs))
    streamed = redundancy_scores(module, groups, batches_of(*torch.split(inputs, batch_size)))
    for root, scores in whole.items():
        assert torch.allclose(torch.from_numpy(streamed[root]), torch.from_numpy(scores), rtol=1e-3)


def costs_by_definition(effect: torch.Tensor, moments: torch.Tensor, width: int) -> list[float]:
    """Return the errors that are left when units go one by one, each refit solved anew."""
    count = len(effect) // width
    left, costs, highest = list(range(count)), [float("inf")] * count, 0.0
    effect, inverse = effect.clone(), torch.linalg.inv(moments)
    while len(left) > 1:
        own = [slice(unit * width, (unit + 1) * width) for unit in left]
        found = [float(torch.linalg.solve(inverse[one, one], effect[one, one]).trace()) for one in own]
        best = min(range(len(left)), key=found.__getitem__)
        highest = max(highest, found[best])
        one = own[best]
        costs[left.pop(best)] = highest
        gain = torch.linalg.solve(inverse[one, one], inverse[one])
        moved = effect[:, one] @ gain
        effect += gain.T @ effect[one, one] @ gain - moved - moved.T
        inverse -= inverse[:, one] @ gain
    return costs


@pytest.mark.parametrize(("units", "width"), [(2, 1), (STRETCH + 1, 1), (2 * STRETCH + 5, 1), (60, 3), (4, 16)])
def test_the_thin_products_cost_what_the_definition_says(units: int, width: int) -> None:
    torch.manual_seed(units)
    weights = torch.randn(7, units * width, dtype=torch.float64)
    rows = torch.randn(4 * units * width, units * width, dtype=torch.float64)
    effect, moments = weights.T @ weights, rows.T @ rows / len(rows)
    reading = _Reading(effect, torch.linalg.inv(moments), width)
    wanted = torch.tensor(costs_by_definition(effect, moments, width), dtype=torch.float64)
    costs = torch.from_numpy(_delete_one_by_one(units, [reading]))
    assert int(costs.isinf().sum()) == 1
    assert torch.allclose(costs, wanted, rtol=1e-6)


def test_the_same_data_gives_the_same_weights() -> None:
    module, samples = built(Residual), samples_of((3, 8, 8), 64)
    one, other = (pruned(module, samples, "50%").candidate for _ in range(2))
    assert one.changes == other.changes
    assert one.fingerprint() == other.fingerprint()


def test_passes_over_a_few_layers_each_give_what_one_over_all_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    module, samples = built(Residual), samples_of((3, 8, 8), 64)
    together = pruned(module, samples, "50%").candidate
    monkeypatch.setattr(moments, "MOST_BYTES", 1)
    apart = pruned(module, samples, "50%").candidate
    assert apart.changes == together.changes
    assert apart.fingerprint() == together.fingerprint()


def test_zeros_would_be_lost() -> None:
    module = Residual().eval()
    candidate = replace(candidate_of(module), sparse=frozenset({"inner.0.weight"}))
    bench = bench_of(module, calibration=samples_of((3, 8, 8)))
    with pytest.raises(UserError, match="zeros of an unstructured prune would be lost in refitted weights"):
        prune.apply(Prune.model_validate({"criterion": "Redundancy", "amount": "30%"}), candidate, bench)


def test_dead_channels_and_silent_data_are_no_division_by_zero() -> None:
    module = built(Flattened)
    with torch.no_grad():
        module.get_parameter("conv.weight").zero_()
        module.get_parameter("conv.bias").zero_()
    samples = samples_of((1, 4, 4), 16)
    left = pruned(module, samples, "40%").candidate.module
    inputs = torch.from_numpy(samples.inputs["inputs"])
    assert torch.allclose(left(inputs), module(inputs), atol=1e-4)


@dataclass(frozen=True)
class Digits:
    """Baselines of several seeds, what calibrates their pruning, and what they answer."""

    baselines: list[nn.Module]
    samples: Samples
    above_chance: Callable[[nn.Module], float]

    def mean(self, change: Callable[[nn.Module], nn.Module]) -> float:
        """Return the mean accuracy above chance of the baselines so changed."""
        return statistics.mean(self.above_chance(change(module)) for module in self.baselines)


@pytest.fixture(scope="module")
def digits() -> Digits:
    images, labels = load_images()
    train_images, train_labels = with_shifts(images[:TRAIN_SAMPLES], labels[:TRAIN_SAMPLES])
    baselines = [train_baseline(train_images, train_labels, seed) for seed in SEEDS]
    torch.set_num_threads(1)
    test_images, test_labels = torch.from_numpy(images[TRAIN_SAMPLES:]), torch.from_numpy(labels[TRAIN_SAMPLES:])

    def above_chance(one: nn.Module) -> float:
        with torch.no_grad():
            return float((one(test_images).argmax(dim=1) == test_labels).float().mean()) - 0.1

    return Digits(baselines, Samples({"inputs": train_images[:CALIBRATION_SAMPLES]}, None, digest=""), above_chance)


@pytest.mark.slow
@pytest.mark.parametrize(("amount", "times"), [("50%", 1.2), ("60%", 1.3), ("70%", 1.7), ("80%", 2.0)])
def test_without_recovery_far_more_is_kept_above_chance_than_by_magnitude_alone(
    digits: Digits, amount: str, times: float
) -> None:
    """Of one seed the ratio is another on each kind of processor: at 60% 2.6 on one and 2.0 on the other."""
    baseline = digits.mean(lambda module: module)
    magnitude, redundancy = (
        digits.mean(lambda module, by=by: pruned(module, digits.samples, amount, by, "Keep").candidate.module)  # type: ignore[misc]
        for by in ("Magnitude", "Redundancy")
    )
    print(f"{amount}: {magnitude:.1%} above chance by Magnitude, {redundancy:.1%} by Redundancy")
    assert redundancy > times * magnitude
    assert redundancy > baseline - 0.03


@pytest.mark.slow
def test_a_smaller_amount_does_not_cost_more() -> None:
    """Blocks of eight that took too much were passed over for ones that cost more: 30% kept less than 50%."""

    def kept(seed: int, amount: str) -> float:
        return accuracy(pruned(learned(SmallDigits, seed), digits_of(0, 256), amount).candidate.module)

    smaller, larger = (statistics.mean(kept(seed, amount) for seed in SEEDS) for amount in ("30%", "50%"))
    assert smaller > larger - 0.01
