"""Factors are exact at full rank, the best there are below it, and keep what they say."""

import pytest
import torch
from tests.jobimage.bench import batches_of
from torch import nn

from plimsoll_job.techniques.factorize.decompose import Factors, decompose
from plimsoll_job.techniques.factorize.layers import Target
from plimsoll_job.techniques.factorize.split import set_weights, smaller_layers
from plimsoll_job.techniques.factorize.whitening import measure_moments, whiten


def product(layer: nn.Module, ranks: tuple[int, ...], factors: Factors) -> nn.Sequential:
    layers = smaller_layers(layer, ranks)
    bias = layer.bias
    assert bias is None or isinstance(bias, torch.Tensor)
    set_weights(layers, factors, bias)
    return layers


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moment_of(layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d, *batches: torch.Tensor) -> torch.Tensor:
    return measure_moments(nn.Sequential(layer), [Target("0", layer, 1, 1)], batches_of(*batches))["0"]


torch.manual_seed(0)
CONVOLUTIONS: dict[str, nn.Conv1d | nn.Conv2d | nn.Conv3d] = {
    "same": nn.Conv2d(6, 8, 3, padding=1),
    "strided": nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
    "dilated": nn.Conv2d(6, 8, (3, 2), dilation=2, padding=(2, 1)),
    "reflected": nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"),
    "pointwise": nn.Conv2d(6, 8, 1, stride=2, padding=1),
    "line": nn.Conv1d(6, 8, 5, padding="same"),
    "volume": nn.Conv3d(6, 8, 3, stride=2, padding=1),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("whitened", [False, True])
def test_a_convolution_at_full_rank_answers_as_before(name: str, whitened: bool) -> None:
    layer = CONVOLUTIONS[name]
    sizes = [9, 10, 7][: layer.weight.ndim - 2]
    inputs = random(4, 6, *sizes)
    found = decompose(layer.weight, whiten(moment_of(layer, inputs)) if whitened else None)
    ranks = found.energy.shape
    assert ranks == ((6,) if name == "pointwise" else (6, 8))
    assert found.energy.ravel()[-1] == pytest.approx(1)
    layers = product(layer, ranks, found.factors(ranks))
    assert torch.allclose(layers(inputs), layer(inputs), atol=1e-5)


@pytest.mark.parametrize(("ranks", "layers"), [((3, 5), 3), ((6, 5), 2), ((3, 8), 2)])
def test_a_side_of_full_rank_needs_no_layer_of_its_own(ranks: tuple[int, int], layers: int) -> None:
    layer = CONVOLUTIONS["same"]
    found = decompose(layer.weight)
    split = product(layer, ranks, found.factors(ranks))
    assert len(split) == layers
    # Whatever the layers are, the energy is what is told.
    layer.requires_grad_(requires_grad=False), split.requires_grad_(requires_grad=False)
    inputs = torch.eye(6 * 9).reshape(-1, 6, 3, 3)
    wrong = (split(inputs) - layer(inputs))[:, :, 1, 1].square().sum() / layer.weight.square().sum()
    assert 1 - float(wrong) == pytest.approx(found.energy[ranks[0] - 1, ranks[1] - 1], abs=1e-5)


@pytest.mark.parametrize("shape", [(10, 7), (7, 10)])
def test_a_matrix_at_full_rank_answers_as_before(shape: tuple[int, int]) -> None:
    layer = nn.Linear(shape[1], shape[0])
    inputs = random(5, 3, shape[1])
    layers = product(layer, (7,), decompose(layer.weight).factors((7,)))
    assert torch.allclose(layers(inputs), layer(inputs), atol=1e-5)


def test_a_matrix_of_low_rank_keeps_all_of_its_energy_there() -> None:
    weight = random(20, 3) @ random(3, 30, seed=1)
    found = decompose(weight)
    assert found.energy[2] == pytest.approx(1, abs=1e-12)
    first, second = found.factors((3,))
    assert torch.allclose((second @ first).float(), weight, atol=1e-4)


def test_no_energy_is_no_reason_to_divide_by_it() -> None:
    found = decompose(torch.zeros(4, 3))
    assert found.energy.tolist() == [1, 1, 1]
    assert all(bool((factor == 0).all()) for factor in found.factors((1,)))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_whitened_factors_answer_better_and_as_well_as_any_can(rank: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(16, 12, bias=False)
    # Inputs of very different directions, as activations are.
    inputs = random(500, 16) * torch.logspace(0, -3, 16) @ random(16, 16, seed=1)
    whitened = decompose(layer.weight, whiten(moment_of(layer, *torch.split(inputs, 128))))
    answers = layer(inputs).detach()

    def error(factors: Factors) -> float:
        return float((product(layer, (rank,), factors)(inputs).detach() - answers).norm() / answers.norm())

    # No answers of this rank come nearer than those of the truncated SVD of the answers themselves.
    values = torch.linalg.svdvals(answers.double())
    best = float(values[rank:].norm() / values.norm())
    assert error(whitened.factors((rank,))) < 0.9 * error(decompose(layer.weight).factors((rank,)))
    assert error(whitened.factors((rank,))) == pytest.approx(best, rel=0.02, abs=1e-3)
    assert 1 - whitened.energy[rank - 1] == pytest.approx(best**2, rel=0.02, abs=1e-4)


def test_whitened_convolutions_answer_better_too() -> None:
    layer = CONVOLUTIONS["same"]
    inputs = (random(64, 8, 8, 6) * torch.logspace(0, -2, 6) @ random(6, 6, seed=1)).movedim(-1, 1)
    answers = layer(inputs)

    def error(factors: Factors) -> float:
        return float((product(layer, (3, 5), factors)(inputs) - answers).detach().norm())

    plain, whitened = decompose(layer.weight), decompose(layer.weight, whiten(moment_of(layer, inputs)))
    assert error(whitened.factors((3, 5))) < 0.7 * error(plain.factors((3, 5)))


def test_the_second_moment_is_of_all_batches_however_long() -> None:
    inputs = random(10, 4, 3)
    whole, parts = (moment_of(nn.Linear(3, 1), *torch.split(inputs, size)) for size in (10, 4))
    assert torch.allclose(whole, parts)
    assert torch.allclose(whole, torch.einsum("bpi,bpj->ij", inputs, inputs).double() / 40, atol=1e-6)


def test_the_second_moment_of_a_convolution_is_of_its_channels() -> None:
    inputs = torch.stack([torch.full((4, 5), 2.0), torch.full((4, 5), 3.0)])[None]
    assert moment_of(nn.Conv2d(2, 1, 3), inputs).tolist() == [[4, 6], [6, 9]]


def test_inputs_that_never_vary_can_be_whitened() -> None:
    for moment in (torch.zeros(3, 3), torch.diag(torch.tensor([1.0, 0.0, 4.0]))):
        whitening = whiten(moment.double())
        assert torch.allclose(whitening.root @ whitening.inverse, torch.eye(3).double())
        assert torch.allclose(whitening.root @ whitening.root.T, moment.double(), atol=1e-5)


@pytest.mark.parametrize("trains", [False, True])
def test_factors_of_a_frozen_layer_are_frozen(trains: bool) -> None:
    layer = nn.Linear(8, 8).eval().requires_grad_(requires_grad=trains)
    layers = smaller_layers(layer, (2,))
    assert {parameter.requires_grad for parameter in layers.parameters()} == {trains}
    assert not layers.training
