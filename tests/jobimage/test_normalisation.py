"""Batch norm after a step: what it answers has the mean and the variance that it had before."""

from typing import Any

import pytest
import torch
from tests.jobimage.bench import bench_of, candidate_of, samples_of
from tests.jobimage.learned import TRAINING, accuracy, digits, learned
from tests.jobimage.modules import PlainCNN, Residual
from tests.jobimage.planted import built
from torch import nn

from plimsoll_api.spec import Factorize, Prune
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import SINGLE_INPUT
from plimsoll_job.techniques import factorize, prune
from plimsoll_job.techniques.normalisation import batch_norms
from plimsoll_job.techniques.observe import tensors_of
from plimsoll_job.techniques.shape import Applied
from plimsoll_job.zoo import small_digits_cnn, wine_mlp


class Frozen(nn.Module):
    """Batch norm whose weights are buffers too, as detection models freeze it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((width,), value))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tensors = (self.get_buffer(name) for name in ("weight", "bias", "running_mean", "running_var"))
        weight, bias, mean, variance = (tensor[:, None, None] for tensor in tensors)
        return (images - mean) / (variance + 1e-5).sqrt() * weight + bias


class Shared(nn.Module):
    """One batch norm behind two layers."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 8, 3) for _ in range(2))
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(16, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        both = torch.cat([torch.relu(self.norm(layer(images))) for layer in self.layers], dim=1)
        logits: torch.Tensor = self.head(both.mean(dim=(2, 3)))
        return logits


def settled(module: nn.Module, samples: Samples) -> nn.Module:
    """Return the module with the statistics that its inputs have, as after a training."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
    with torch.no_grad():
        module.train()(*tensors_of(samples.inputs))
    return module.eval()


def pruned(module: nn.Module, **settings: Any) -> Applied:
    data = {name: settings.pop(name) for name in ("train", "calibration") if name in settings}
    bench = bench_of(module, **data)
    return prune.apply(Prune.model_validate({"criterion": "Magnitude"} | settings), candidate_of(module), bench)


def answered_by_norms(module: nn.Module, samples: Samples) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return mean and deviation of each channel that each batch norm answers."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, output: torch.Tensor) -> None:
        found[name] = output.transpose(0, 1).flatten(1)

    hooks = [
        norm.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name, norm in batch_norms(module).items()
    ]
    with torch.no_grad():
        module(*tensors_of(samples.inputs))
    for hook in hooks:
        hook.remove()
    return {name: (output.mean(dim=1), output.std(dim=1)) for name, output in found.items()}


def distance(given: nn.Module, wanted: nn.Module) -> float:
    """Return how far the answers to digits that were not trained on are from those wanted."""
    images = tensors_of(digits(TRAINING).inputs)
    with torch.no_grad():
        return float((given(*images) - wanted(*images)).square().mean().sqrt())


@pytest.mark.parametrize(
    ("build", "granularity"),
    [(PlainCNN, "Structured"), (Residual, "Structured"), (PlainCNN, "Unstructured"), (Shared, "Unstructured")],
)
def test_what_batch_norms_answer_keeps_its_mean_and_variance(build: type[nn.Module], granularity: str) -> None:
    samples = samples_of((3, 8, 8), 256)
    module = settled(built(build), samples)
    before = answered_by_norms(module, samples)
    applied = pruned(module, amount="40%", granularity=granularity, calibration=samples)
    after = applied.candidate.module
    for name, (mean, deviation) in answered_by_norms(after, samples).items():
        # Weights tell the channels that are left.
        left = torch.isin(*(batch_norms(one)[name].get_parameter("weight") for one in (module, after)))
        torch.testing.assert_close(mean, before[name][0][left], atol=0.02, rtol=0)
        torch.testing.assert_close(deviation, before[name][1][left], atol=0.02, rtol=0.02)
    assert set(applied.details["batchNorm"]["reestimated"]) <= set(before)
    assert applied.details["batchNorm"]["samples"] == 256


@pytest.mark.parametrize("step", ["Structured", "Unstructured", "Svd"])
def test_more_is_right_without_any_training(step: str) -> None:
    calibration = Samples({SINGLE_INPUT: digits(0, 256).inputs[SINGLE_INPUT]}, None, digest="")

    def right(module: nn.Module, setting: str) -> float:
        more: dict[str, Any] = {"amount": "60%" if step == "Unstructured" else "30%", "batchNorm": setting}
        if step != "Svd":
            applied = pruned(module, granularity=step, calibration=calibration, **more)
        else:
            bench = bench_of(module, calibration=calibration)
            settings = Factorize.model_validate({"method": "Svd"} | more)
            applied = factorize.apply(settings, candidate_of(module), bench)
        return accuracy(applied.candidate.module)

    gains = []
    for seed in range(3):
        module = learned(small_digits_cnn, seed)
        gains.append(right(module, "Reestimate") - right(module, "Keep"))
    # 1 to 10 points by zeros, 10 to 40 otherwise.
    assert min(gains) > 0, gains
    assert sum(gains) / 3 > 0.02, gains


@pytest.mark.parametrize("count", [4, 64])
def test_where_nothing_changed_nothing_moves_however_little_data_there_is(count: int) -> None:
    # Its only batch norm reads the inputs.
    module = built(wine_mlp)  # type: ignore[arg-type]
    samples = samples_of((13,), count)
    applied = pruned(module, amount="30%", calibration=samples)
    for name, buffer in module.named_buffers():
        assert torch.equal(applied.candidate.module.get_buffer(name), buffer)
    assert "batchNorm" not in applied.details
    assert not pruned(module, amount="30%").notes


def test_few_samples_leave_the_answers_nearer_than_statistics_of_their_own() -> None:
    few = Samples({SINGLE_INPUT: digits(0, 16).inputs[SINGLE_INPUT]}, None, digest="")
    for seed in range(3):
        module = learned(small_digits_cnn, seed)
        zeros: dict[str, Any] = {"amount": "20%", "granularity": "Unstructured", "calibration": few}
        ours = pruned(module, **zeros).candidate.module
        their_own = settled(pruned(module, **zeros, batchNorm="Keep").candidate.module, few)
        assert distance(ours, module) < 0.7 * distance(their_own, module)


def test_training_data_stand_in_for_calibration_data_and_a_job_without_either_is_told() -> None:
    samples = samples_of((3, 8, 8), 64)
    module = settled(built(PlainCNN), samples)
    with_train, with_calibration, without = (
        pruned(module, amount="40%", **data) for data in ({"train": samples}, {"calibration": samples}, {})
    )
    for name, buffer in with_train.candidate.module.named_buffers():
        assert torch.equal(with_calibration.candidate.module.get_buffer(name), buffer)
    (note,) = without.notes
    assert "keep the statistics of the training" in note
    assert "body.4" in note
    assert not pruned(module, amount="40%", batchNorm="Keep").notes


def test_frozen_batch_norm_is_batch_norm_too() -> None:
    samples = samples_of((3, 8, 8), 64)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), Frozen(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    ).eval()
    module.input_shape = (3, 8, 8)  # type: ignore[assignment]
    applied = pruned(module, amount="40%", granularity="Unstructured", calibration=samples)
    before, after = (answered_by_norms(one, samples)["3"] for one in (module, applied.candidate.module))
    torch.testing.assert_close(after, before, atol=0.01, rtol=0.01)


def test_what_redundancy_refits_keeps_its_statistics_unless_told_otherwise() -> None:
    samples = samples_of((3, 8, 8), 64)
    module = settled(built(Residual), samples)
    refitted: dict[str, Any] = {"criterion": "Redundancy", "amount": "30%", "calibration": samples}
    assert "batchNorm" not in pruned(module, **refitted).details
    assert pruned(module, **refitted, batchNorm="Reestimate").details["batchNorm"]["reestimated"]
