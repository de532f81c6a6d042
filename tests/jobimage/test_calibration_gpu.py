"""On a GPU calibration finds what it finds on a processor, the same in each run, and leaves nothing there."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.modules import Residual
from tests.jobimage.planted import built, copy_channel
from torch import nn

from plimsoll_api.spec import ActivationStatistic, Factorize, Prune
from plimsoll_job.errors import UserError
from plimsoll_job.load.inputs import single
from plimsoll_job.ranks import Ranks
from plimsoll_job.techniques import factorize, prune
from plimsoll_job.techniques.factorize.decompose import decompose
from plimsoll_job.techniques.factorize.layers import find_targets
from plimsoll_job.techniques.factorize.whitening import measure_moments, whiten
from plimsoll_job.techniques.observe import HOST, Batches, moved
from plimsoll_job.techniques.prune.compensation import compensate
from plimsoll_job.techniques.prune.coupling import cut, find_groups
from plimsoll_job.techniques.prune.importance import activation_scores
from plimsoll_job.techniques.prune.moments import moments_of
from plimsoll_job.techniques.prune.readers import readers_of
from plimsoll_job.techniques.shape import Applied, Bench, Candidate, Cut

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="of machines with a GPU")

GPU = torch.device("cuda", 0)
SHAPE = (3, 8, 8)
IMAGES = (3, 32, 32)


@pytest.fixture(autouse=True)
def _nothing_stays_on_the_gpu() -> Iterator[None]:
    # What cuBLAS takes for itself stays.
    for dtype in (torch.float32, torch.float64):
        nn.Linear(64, 64, device=GPU, dtype=dtype)(torch.ones(64, 64, device=GPU, dtype=dtype)).detach()
    before = torch.cuda.memory_allocated()
    yield
    assert torch.cuda.memory_allocated() - before < 1 << 24


def transformer() -> nn.Module:
    from torchvision import models  # noqa: PLC0415 — a second, and only where there is a GPU

    torch.manual_seed(0)
    module: nn.Module = models.VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=10).eval()
    nn.init.normal_(module.get_parameter("heads.head.weight"))
    return module


def resnet() -> nn.Module:
    from torchvision import models  # noqa: PLC0415

    torch.manual_seed(0)
    module: nn.Module = models.resnet18(weights=None).eval()
    return module


def batches_on(device: torch.device, shape: tuple[int, ...] = SHAPE) -> Batches:
    return Batches.of(samples_of(shape, 96), device)


def applied_on(
    device: torch.device, technique: Any, settings: Any, module: nn.Module, shape: tuple[int, ...]
) -> Applied:
    class There(Ranks):
        @property
        def device(self) -> torch.device:
            return device

    bench: Bench = bench_of(module, calibration=samples_of(shape, 96), signature=single(shape))
    applied: Applied = technique.apply(settings, Candidate(module), replace(bench, ranks=There()))
    assert {tensor.device for tensor in applied.candidate.module.state_dict().values()} == {HOST}
    return applied


def near(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    return float((one.cpu() - other.cpu()).norm() / one.cpu().norm()) < tolerance


@pytest.mark.parametrize("statistic", list(ActivationStatistic))
def test_activations_are_those_of_the_processor(statistic: ActivationStatistic) -> None:
    module = built(Residual)
    groups = find_groups(module, single(SHAPE))
    on_host, on_gpu = (activation_scores(module, groups, batches_on(one), statistic) for one in (HOST, GPU))
    for root, scores in on_host.items():
        assert np.allclose(on_gpu[root], scores, rtol=1e-3, atol=1e-4)


def test_moments_are_those_of_the_processor() -> None:
    module = built(Residual)
    readers = readers_of(module, find_groups(module, single(SHAPE)))
    on_host, on_gpu = (moments_of(module, readers, batches_on(one)) for one in (HOST, GPU))
    assert list(on_host) == list(on_gpu)
    for name, moments in on_host.items():
        there = on_gpu[name]
        assert there.mean.device == GPU
        assert there.row_count == moments.row_count
        assert there.mean.dtype is torch.float64
        assert near(moments.mean, there.mean, 1e-5)
        assert near(moments.second(centred=True), there.second(centred=True), 1e-5)


def test_what_is_refitted_there_is_refitted_here() -> None:
    module = built(Residual)
    # Else what is left of the weights is decided by the ridge.
    copy_channel(module, ["inner.0", "inner.1"], source=1, target=4)
    groups, one = find_groups(module, single(SHAPE)), Cut("inner.0", (4,))
    on_host, on_gpu = cut(module, single(SHAPE), [one]), cut(module, single(SHAPE), [one])
    plain = copy.deepcopy(on_host.state_dict())
    done_here = compensate(module, on_host, groups, [one], batches_on(HOST))
    done_there = compensate(module, on_gpu, groups, [one], batches_on(GPU))
    assert [fit.layer for fit in done_here] == [fit.layer for fit in done_there]
    assert all(fit.error < 1e-4 < fit.error_of_cut for fit in done_there)
    changed = 0
    for name, tensor in on_host.state_dict().items():
        there = on_gpu.state_dict()[name]
        assert there.device == HOST
        changed += not torch.equal(there, plain[name])
        assert torch.allclose(tensor, there, atol=1e-3)
    assert changed > 0
    inputs = torch.from_numpy(samples_of(SHAPE, 16, seed=1).inputs["inputs"])
    assert torch.allclose(on_gpu(inputs), module(inputs), atol=1e-3)


@pytest.mark.parametrize("granularity", ["Structured", "Unstructured"])
def test_a_scan_finds_the_errors_that_the_processor_finds(granularity: str) -> None:
    settings = Prune.model_validate(
        {"criterion": "Magnitude", "granularity": granularity, "amount": "30%", "allocation": "Sensitivity"}
    )
    on_host, on_gpu = (
        applied_on(one, prune, settings, transformer(), IMAGES).details["sensitivity"]["errors"] for one in (HOST, GPU)
    )
    assert list(on_host) == list(on_gpu)
    for layer, errors in on_host.items():
        assert on_gpu[layer] == pytest.approx(errors, rel=1e-2, abs=1e-5)


@pytest.mark.parametrize(("build", "shape"), [(transformer, IMAGES), (resnet, IMAGES)])
def test_whitened_factors_are_those_of_the_processor(build: Any, shape: tuple[int, ...]) -> None:
    module = build()
    targets, _ = find_targets(module, single(shape))
    moments = {one: measure_moments(module, targets, batches_on(one, shape)) for one in (HOST, GPU)}
    for target in targets:
        here, there = moments[HOST][target.name], moments[GPU][target.name]
        assert there.device == GPU
        assert near(here, there, 1e-4)
        # Of the same moments: where some are almost alike, singular vectors of both are any two of their plane.
        weight = target.layer.weight
        on_host, on_gpu = decompose(weight, whiten(here)), decompose(weight, whiten(here.to(GPU)), GPU)
        assert np.allclose(on_gpu.energy, on_host.energy, atol=1e-6)
        ranks = [max(1, rank // 2) for rank in on_host.energy.shape]
        for one, other in zip(_products(on_host, ranks), _products(on_gpu, ranks), strict=True):
            assert near(one, other, 1e-3)


def _products(found: Any, ranks: list[int]) -> Iterator[torch.Tensor]:
    """Yield what the factors multiply to, where they are a matrix's: bases of convolutions may differ in sign."""
    factors = [one.cpu() for one in found.factors(ranks)]
    if len(ranks) == 1:
        yield factors[1].flatten(1) @ factors[0].flatten(1)
    else:
        first, core, *last = factors if factors[0].ndim == 2 else (torch.eye(factors[0].shape[1]).double(), *factors)
        product = torch.einsum("oqk,qi->oik", core.flatten(2), first.flatten(1))
        yield torch.einsum("po,oik->pik", last[0].flatten(1), product) if last else product


SETTINGS: Mapping[str, tuple[Any, Any]] = {
    "mean": (prune, Prune.model_validate({"criterion": "Activation", "amount": "30%"})),
    "redundancy": (prune, Prune.model_validate({"criterion": "Redundancy", "amount": "20%"})),
    "taylor": (prune, Prune.model_validate({"criterion": "Taylor", "amount": "30%"})),
    "wanda": (
        prune,
        Prune.model_validate(
            {"criterion": "Activation", "statistic": "Wanda", "granularity": "Unstructured", "amount": "30%"}
        ),
    ),
    "scan": (prune, Prune.model_validate({"criterion": "Activation", "amount": "30%", "allocation": "Sensitivity"})),
    "scan of weights": (
        prune,
        Prune.model_validate(
            {"criterion": "Magnitude", "granularity": "Unstructured", "amount": "30%", "allocation": "Sensitivity"}
        ),
    ),
    "svd": (factorize, Factorize.model_validate({"method": "Svd", "amount": "20%"})),
    "whitened": (factorize, Factorize.model_validate({"method": "ActivationSvd", "amount": "20%"})),
}


@pytest.mark.parametrize("build", [transformer, resnet])
@pytest.mark.parametrize("name", SETTINGS)
def test_two_runs_give_the_same_model(name: str, build: Any) -> None:
    technique, settings = SETTINGS[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*deterministic")
        one, other = (applied_on(GPU, technique, settings, build(), IMAGES) for _ in range(2))
    assert one.candidate.fingerprint() == other.candidate.fingerprint()
    assert dict(one.details) == dict(other.details)


def test_weights_are_on_the_gpu_once() -> None:
    module = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(8))).eval()
    weights_bytes = sum(parameter.nbytes for parameter in module.parameters())
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    settings = SETTINGS["wanda"][1]
    applied_on(GPU, prune, settings, module, (2048,))
    assert 1.0 <= (torch.cuda.max_memory_allocated() - before) / weights_bytes < 1.2


def test_without_room_on_the_gpu_the_model_stays_whole() -> None:
    module = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(8))).eval()
    before = copy.deepcopy(module.state_dict())
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-3)
    try:
        with pytest.raises(torch.OutOfMemoryError) as caught:
            applied_on(GPU, prune, SETTINGS["wanda"][1], module, (2048,))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    del caught
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_model_that_cannot_leave_the_host_is_said() -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.shift = nn.Linear(4, 4), torch.ones(4)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            answers: torch.Tensor = self.layer(rows + self.shift)
            return answers

    with pytest.raises(UserError, match="register them as buffers, or ask for no GPU"):
        applied_on(GPU, prune, SETTINGS["wanda"][1], Held().eval(), (4,))


def test_what_is_changed_there_is_changed_here() -> None:
    layer = nn.Linear(2, 2)
    address = layer.weight.data_ptr()
    with torch.no_grad(), moved(GPU, layer):
        layer.weight[:, [0]] = 3.0
    assert layer.weight[:, 0].tolist() == [3.0, 3.0]
    assert layer.weight.data_ptr() == address
