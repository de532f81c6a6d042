"""What others can stand in for goes first, and what reads it makes good for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.claims import DISTILL, INT8, Claims
from tests.jobimage.modules import DepthwiseSeparable, Flattened, Grouped, MixedMLP, PlainCNN, Residual
from torch import nn

from plimsoll_api.report import Summary
from plimsoll_api.spec import Prune
from plimsoll_job import compress as flow
from plimsoll_job.examples.digits import CALIBRATION_SAMPLES, TRAIN_SAMPLES, load_images, train_baseline, with_shifts
from plimsoll_job.export.onnx_export import export_onnx
from plimsoll_job.figures import WEIGHTED, count_parameters
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import single
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques import prune
from plimsoll_job.techniques.moments import Moments
from plimsoll_job.techniques.prune.compensation import compensate
from plimsoll_job.techniques.prune.coupling import cut, find_groups
from plimsoll_job.techniques.prune.redundancy import redundancy_scores
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Applied, Candidate, Cut
from plimsoll_job.techniques.table import TECHNIQUES

ARCHITECTURES: list[type[nn.Module]] = [PlainCNN, Flattened, MixedMLP, Residual, DepthwiseSeparable]


def built(build: type[nn.Module], seed: int = 0) -> nn.Module:
    """Return the module with weights that make its answers differ, and normalisation that is not the identity."""
    torch.manual_seed(seed)
    module = build().eval()
    for layer in module.modules():
        if isinstance(layer, WEIGHTED):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias)
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.5)
    return module


def pruned(module: nn.Module, samples: Samples, amount: str, criterion: str = "Redundancy") -> Applied:
    settings = Prune.model_validate({"criterion": criterion, "amount": amount})
    return prune.apply(settings, Candidate(module), bench_of(module, calibration=samples))


def refitted(module: nn.Module, shape: tuple[int, ...], inputs: torch.Tensor, one: Cut) -> nn.Module:
    less = cut(module, single(shape), [one])
    compensate(module, less, find_groups(module, single(shape)), [one], lambda: [(one,) for one in inputs.split(16)])  # type: ignore[no-untyped-call]
    return less


def copy_channel(module: nn.Module, layers: list[str], source: int, target: int, factor: float = 1) -> None:
    """Make one channel the multiple of another: the last layer named is scaled, the others are copied."""
    with torch.no_grad():
        for number, name in enumerate(layers):
            layer = module.get_submodule(name)
            last = factor if number == len(layers) - 1 else 1
            for key, tensor in layer.state_dict().items():
                if tensor.ndim:
                    tensor[target] = tensor[source] * (last if key in ("weight", "bias") else 1)


PLANTED: list[tuple[type[nn.Module], list[str], str]] = [
    (PlainCNN, ["body.0", "body.1"], "body.0"),
    (PlainCNN, ["body.3", "body.4"], "body.3"),
    (Flattened, ["conv"], "conv"),
    (Flattened, ["hidden"], "hidden"),
    (Residual, ["inner.0", "inner.1"], "inner.0"),
    (DepthwiseSeparable, ["first", "depthwise"], "depthwise"),
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
    scores = redundancy_scores(module, find_groups(module, single(shape)), [(inputs,)])[root]
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
    scores = redundancy_scores(module, find_groups(module, single((6,))), [(inputs,)])["mix"]
    assert scores[[0, 1, 2, 5]].min() == scores.min() < 1e-4 * scores[3]
    less = refitted(module, (6,), inputs, Cut("mix", (5,)))
    assert torch.allclose(less(inputs), module(inputs), atol=1e-4)


def test_channels_of_a_residual_sum_go_together_and_every_reader_is_refitted() -> None:
    module = built(Residual)
    copy_channel(module, ["stem.0", "stem.1"], source=1, target=4)
    copy_channel(module, ["outer.0", "outer.1"], source=1, target=4)
    samples = samples_of((3, 8, 8), 64)
    inputs = torch.from_numpy(samples.inputs["inputs"])
    groups = find_groups(module, single((3, 8, 8)))
    (added,) = (group for group in groups if len(group.producers) == 2)
    less = cut(module, single((3, 8, 8)), [Cut(added.root, (4,))])
    done = compensate(module, less, groups, [Cut(added.root, (4,))], lambda: [(inputs,)])
    assert [(one.layer, one.channels_before, one.channels_after) for one in done] == [
        ("inner.0", 32, 31),
        ("head", 32, 31),
    ]
    assert all(one.error < 1e-6 < one.error_of_cut for one in done)
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
    whole = redundancy_scores(module, groups, [(inputs,)])
    streamed = redundancy_scores(module, groups, [(one,) for one in inputs.split(batch_size)])  # type: ignore[no-untyped-call]
    for root, scores in whole.items():
        assert torch.allclose(torch.from_numpy(streamed[root]), torch.from_numpy(scores), rtol=1e-3)


def test_moments_are_those_of_all_rows() -> None:
    rows = torch.randn(1000, 5) + 3
    moments = Moments(5)
    for part in rows.split(33):  # type: ignore[no-untyped-call]
        moments.add(part)
    assert moments.row_count == 1000
    assert torch.allclose(moments.mean, rows.double().mean(dim=0))
    assert torch.allclose(moments.second(centred=True), torch.cov(rows.double().T, correction=0))
    assert torch.allclose(moments.second(centred=False), rows.double().T @ rows.double() / 1000)


@pytest.mark.parametrize("amount", ["50%", "80%"])
@pytest.mark.parametrize("build", ARCHITECTURES)
def test_what_is_left_answers_better_than_what_was_merely_cut(build: type[nn.Module], amount: str) -> None:
    module = built(build)
    shape: tuple[int, ...] = module.input_shape  # type: ignore[assignment]
    samples = samples_of(shape, 256)
    applied = pruned(module, samples, amount)
    share = 1 - count_parameters(applied.candidate.module) / count_parameters(module)
    assert share == pytest.approx(float(amount.rstrip("%")) / 100, abs=0.04)
    inputs = torch.from_numpy(samples_of(shape, 64, seed=1).inputs["inputs"])
    with torch.no_grad():
        wanted, given = module(inputs), applied.candidate.module(inputs)
        plain = replay(module, single(shape), applied.candidate.changes)(inputs)
    assert given.shape == wanted.shape
    assert (given - wanted).square().mean() < 0.9 * (plain - wanted).square().mean()
    for layer in applied.details["refitted"].values():
        assert layer["error"] <= layer["errorOfCut"]
        assert layer["channels"][1] < layer["channels"][0]


@pytest.mark.parametrize("build", ARCHITECTURES)
def test_the_exported_artifact_answers_as_the_module(build: type[nn.Module]) -> None:
    module = built(build)
    shape: tuple[int, ...] = module.input_shape  # type: ignore[assignment]
    left = pruned(module, samples_of(shape, 64), "50%").candidate.module
    inputs = samples_of(shape, 16, seed=1).inputs["inputs"]
    (answers,) = ort.InferenceSession(export_onnx(left, single(shape))).run(None, {"inputs": inputs})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(answers), left(torch.from_numpy(inputs)), atol=1e-4)


def test_the_same_data_gives_the_same_weights() -> None:
    module, samples = built(Residual), samples_of((3, 8, 8), 64)
    one, other = (pruned(module, samples, "50%").candidate for _ in range(2))
    assert one.changes == other.changes
    assert one.fingerprint() == other.fingerprint()


def test_dead_channels_and_silent_data_are_no_division_by_zero() -> None:
    module = built(Flattened)
    with torch.no_grad():
        module.get_parameter("conv.weight").zero_()
        module.get_parameter("conv.bias").zero_()
    samples = samples_of((1, 4, 4), 16)
    left = pruned(module, samples, "40%").candidate.module
    inputs = torch.from_numpy(samples.inputs["inputs"])
    assert torch.allclose(left(inputs), module(inputs), atol=1e-4)


def test_too_few_samples_are_said() -> None:
    applied = pruned(built(MixedMLP), samples_of((6,), 4), "30%")
    assert any("4 rows of calibration data cannot tell 24 channels apart" in note for note in applied.notes)


def test_grouped_convolutions_are_left_whole_and_said_so() -> None:
    module = built(Grouped)
    applied = pruned(module, samples_of((3, 8, 8), 32), "20%")
    assert applied.candidate.module.get_parameter("grouped.weight").shape == (8, 4, 3, 3)
    assert applied.details["channels"].keys() == {"last"}
    assert "What grouped convolutions read and write was left whole: grouped." in applied.notes


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Samples, Callable[[nn.Module], float]]:
    images, labels = load_images()
    train_images, train_labels = with_shifts(images[:TRAIN_SAMPLES], labels[:TRAIN_SAMPLES])
    module = train_baseline(train_images, train_labels)
    torch.set_num_threads(1)
    test_images, test_labels = torch.from_numpy(images[TRAIN_SAMPLES:]), torch.from_numpy(labels[TRAIN_SAMPLES:])

    def above_chance(one: nn.Module) -> float:
        with torch.no_grad():
            return float((one(test_images).argmax(dim=1) == test_labels).float().mean()) - 0.1

    return module, Samples({"inputs": train_images[:CALIBRATION_SAMPLES]}, None, digest=""), above_chance


@pytest.mark.slow
@pytest.mark.parametrize(("amount", "times"), [("50%", 2.0), ("60%", 2.2), ("70%", 3.0), ("80%", 3.0)])
def test_without_recovery_twice_the_accuracy_above_chance_of_magnitude_pruning(
    digits: tuple[nn.Module, Samples, Callable[[nn.Module], float]], amount: str, times: float
) -> None:
    module, samples, above_chance = digits
    magnitude, redundancy = (
        above_chance(pruned(module, samples, amount, criterion).candidate.module)
        for criterion in ("Magnitude", "Redundancy")
    )
    print(f"{amount}: {magnitude:.1%} above chance by Magnitude, {redundancy:.1%} by Redundancy")
    assert redundancy > times * magnitude
    assert redundancy > above_chance(module) - 0.02


REDUNDANCY = {"prune": {"criterion": "Redundancy", "amount": "50%"}}
STEPS = [REDUNDANCY, DISTILL, REDUNDANCY, INT8]


class Killed(BaseException):
    """The pod dies."""


def die(*_: object) -> Applied:
    raise Killed


def compressed(claims: Claims) -> Summary:
    summary = flow.compress(claims.plan(STEPS), Store(claims=claims.directory), Reporter(emit=lambda _: None))
    torch.set_num_threads(1)
    return summary


@pytest.mark.slow
def test_a_killed_run_ends_in_the_artifact_of_an_undisturbed_one(
    claims: Claims, wine_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = compressed(Claims.copy_of(wine_source, tmp_path / "undisturbed"))
    for deadly in ("distill", "quantize"):
        with monkeypatch.context() as patched:
            patched.setitem(TECHNIQUES, deadly, die)
            with pytest.raises(Killed):
                compressed(claims)
    assert compressed(claims) == undisturbed
