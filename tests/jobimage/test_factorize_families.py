"""Models of transformers are factorized whole, also where they read a layer's weight or hold it transposed."""

from __future__ import annotations

import pytest
import torch
from tests.jobimage.architectures import TRANSFORMERS
from tests.jobimage.bench import bench_of
from torch import nn

from plimsoll_api.spec import Factorize, FactorizeMethod
from plimsoll_job.figures import count, is_transposed
from plimsoll_job.load.examples import example_of
from plimsoll_job.techniques import factorize
from plimsoll_job.techniques.factorize.layers import as_linear
from plimsoll_job.techniques.factorize.split import set_weights, smaller_layers
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Applied, Candidate


def factorized(name: str, **how: str) -> tuple[nn.Module, Applied]:
    torch.manual_seed(0)
    build, inputs = TRANSFORMERS[name]
    module = build()
    settings = Factorize(method=FactorizeMethod.SVD, **how)
    return module, factorize.apply(settings, Candidate(module), bench_of(module, signature=inputs))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_fifth_of_the_parameters_goes_and_none_but_grouped_layers_are_left(name: str) -> None:
    module, applied = factorized(name, amount="20%")
    inputs = TRANSFORMERS[name][1]
    before, after = count(module, inputs), count(applied.candidate.module, inputs)
    assert 0.79 * before.parameters < after.parameters < 0.81 * before.parameters
    assert (after.macs or 0) < (before.macs or 0)
    assert all("groups are a factorization already" in why for why in applied.details["left"].values())
    again = replay(module, inputs, applied.candidate.changes).eval()
    again.load_state_dict(applied.candidate.module.state_dict())
    with torch.no_grad():
        given = example_of(inputs)
        assert torch.equal(again(*given), applied.candidate.module(*given))


def test_transposed_layers_of_low_rank_lose_nothing() -> None:
    torch.manual_seed(0)
    build, inputs = TRANSFORMERS["gpt2"]
    module = build()
    transposed = [layer for layer in module.modules() if is_transposed(layer)]
    assert len(transposed) == 8
    with torch.no_grad():
        for layer in transposed:
            weight = layer.get_parameter("weight")
            weight.copy_(torch.randn(len(weight), 4) @ torch.randn(4, weight.shape[1]) / 8)
            layer.get_parameter("bias").normal_()
    settings = Factorize(method=FactorizeMethod.SVD, keep="99.999%")
    applied = factorize.apply(settings, Candidate(module), bench_of(module, signature=inputs))
    ranks = {one["layer"]: one["ranks"] for one in applied.details["layers"]}
    assert [ranks[name] for name, layer in module.named_modules() if is_transposed(layer)] == [[4]] * 8
    given = example_of(inputs)
    with torch.no_grad():
        assert torch.allclose(applied.candidate.module(*given), module(*given), atol=1e-3)


@pytest.mark.parametrize(
    ("layer", "ranks"),
    [
        (nn.Linear(6, 5), (5,)),
        (nn.Conv2d(6, 5, 1), (5,)),
        (nn.Conv2d(6, 5, 3, stride=2, padding=1), (6, 4)),
        (nn.Conv1d(6, 5, 3), (4, 5)),
        (nn.Conv2d(6, 5, 3, bias=False), (4, 3)),
    ],
)
def test_the_weight_of_a_product_is_that_of_the_layer_that_answers_alike(
    layer: nn.Linear | nn.Conv1d | nn.Conv2d, ranks: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    product = smaller_layers(layer, ranks)
    set_weights(product, [torch.randn_like(one.weight) for one in product], layer.bias)  # type: ignore[arg-type]
    assert product.weight.shape == layer.weight.shape
    assert (product.bias is None) == (layer.bias is None)
    given = torch.randn(2, 6, *[9] * (layer.weight.ndim - 2))
    with torch.no_grad():
        layer.weight.copy_(product.weight)
        assert torch.allclose(product(given), layer(given), atol=1e-5)


def test_a_transposed_layer_is_a_linear_layer() -> None:
    layer = next(layer for layer in TRANSFORMERS["gpt2"][0]().modules() if is_transposed(layer))
    given = torch.randn(2, 3, 64)
    with torch.no_grad():
        assert torch.allclose(as_linear(layer)(given), layer(given), atol=1e-6)
