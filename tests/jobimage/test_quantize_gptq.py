"""Weights are rounded so that others make up for what each loses, on the very grids that ONNX Runtime then finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.jobimage.bench import samples_of
from tests.jobimage.haswell import Serve, here
from tests.jobimage.modules import DepthwiseSeparable, PlainCNN
from tests.jobimage.texts import TEXT, VOCABULARY, sentences, tiny_bert
from torch import Tensor, nn

from plimsoll_api.spec import QuantizeScheme
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import Input, Signature, single
from plimsoll_job.scratch import Scratch
from plimsoll_job.techniques import moments as moments_module
from plimsoll_job.techniques.quantize.float_model import FloatModel, float_model_of
from plimsoll_job.techniques.quantize.layers import Layer
from plimsoll_job.techniques.quantize.ranges import observe_ranges
from plimsoll_job.techniques.quantize.refine.compensate import compensate, restored
from plimsoll_job.techniques.quantize.refine.gptq import round_compensated, shrunk
from plimsoll_job.techniques.quantize.refine.grid import INT4, INT8, Grid
from plimsoll_job.techniques.quantize.schemes import scheme_of
from plimsoll_job.techniques.shape import Candidate

GRIDS = {"Int8 of 7 bits": INT8[7], "Int8 of 8 bits": INT8[8], "Int4": INT4}
SEEDS = range(5)


def correlated(rows: int, width: int, seed: int, of: int = 0) -> Tensor:
    """Return rows that a quarter as many numbers make, and a little noise; `of` tells samples of one kind apart."""
    mixing = torch.randn(width // 4, width, generator=torch.Generator().manual_seed(seed))
    chance = torch.Generator().manual_seed(1000 * of + seed)
    return (torch.randn(rows, width // 4, generator=chance) @ mixing) / 4 + 0.05 * torch.randn(
        rows, width, generator=chance
    )


def weight_of(outputs: int, inputs: int, seed: int) -> Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(77 + seed))


def second(rows: Tensor) -> Tensor:
    return shrunk(rows.double().T @ rows.double() / len(rows), len(rows))


def error(made: Tensor, weight: Tensor, rows: Tensor) -> float:
    return float((rows @ (made - weight).T).norm() / (rows @ weight.T).norm())


def rounded(weight: Tensor, moments: Tensor, grid: Grid) -> Tensor:
    made = round_compensated(weight, moments, grid)
    assert made is not None
    return made[0]


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_answers_to_correlated_inputs_are_twice_as_near_on_data_that_was_not_seen(grid: Grid, seed: int) -> None:
    weight, unseen = weight_of(48, 96, seed), correlated(500, 96, seed, of=1)
    made = rounded(weight, second(correlated(2000, 96, seed)), grid)
    assert error(made, weight, unseen) < 0.5 * error(grid.round(weight), weight, unseen)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_grid_is_found_again_in_what_was_rounded(grid: Grid, seed: int) -> None:
    weight = weight_of(48, 80, seed)
    made = rounded(weight, second(correlated(400, 80, seed)), grid)
    assert not torch.equal(made, grid.round(weight))
    found, expected = (grid.scales(grid.blocks(one)) for one in (made, weight))
    if grid is not INT4:
        # Both ends are as far from zero, and either may be taken for the largest.
        found, expected = found.abs(), expected.abs()
    assert torch.allclose(found, expected, rtol=1e-6, atol=0)
    assert torch.allclose(grid.round(made), made, rtol=1e-6, atol=0)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_zeros_of_a_pruning_stay_zero(grid: Grid) -> None:
    weight = weight_of(32, 64, 0)
    pruned = weight.where(torch.rand(32, 64, generator=torch.Generator().manual_seed(1)) < 0.5, 0.0)
    rows = correlated(2000, 64, 0)
    made = rounded(pruned, second(rows), grid)
    assert (made[pruned == 0] == 0).all()
    assert error(made, pruned, rows) < 0.8 * error(grid.round(pruned), pruned, rows)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_few_rows_of_independent_inputs_make_nothing_worse_on_other_data(grid: Grid) -> None:
    shares = []
    for seed in SEEDS:
        chance = torch.Generator().manual_seed(seed)
        seen, unseen = torch.randn(64, 64, generator=chance), torch.randn(500, 64, generator=chance)
        weight = weight_of(32, 64, seed)
        shares.append(error(rounded(weight, second(seen), grid), weight, unseen))
        shares[-1] /= error(grid.round(weight), weight, unseen)
    assert np.mean(shares) < 1.15


def test_inputs_and_outputs_that_are_always_zero_are_rounded_to_the_nearest() -> None:
    weight, rows = weight_of(16, 32, 0), correlated(300, 32, 0)
    weight[3] = 0
    rows[:, [2, 9]] = 0
    made = rounded(weight, second(rows), INT8[7])
    assert (made[3] == 0).all()
    assert torch.equal(made[:, [2, 9]], INT8[7].round(weight)[:, [2, 9]])


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (5, 1), (1, 33), (3, 31)])
def test_tiny_weights_are_rounded(grid: Grid, outputs: int, inputs: int) -> None:
    weight = weight_of(outputs, inputs, 0)
    made = rounded(weight, second(torch.randn(50, inputs)), grid)
    assert made.shape == weight.shape
    assert torch.allclose(grid.round(made), made, rtol=1e-6, atol=0)


def test_inputs_that_are_all_one_number_are_no_hindrance() -> None:
    rows = torch.randn(50, 1).expand(50, 40).contiguous()
    weight = weight_of(8, 40, 0)
    made = rounded(weight, second(rows), INT4)
    assert error(made, weight, rows) < 0.5 * error(INT4.round(weight), weight, rows)


@pytest.mark.parametrize("moments", [torch.zeros(4, 4), torch.full((4, 4), float("nan")), torch.full((4, 4), np.inf)])
def test_without_moments_nothing_is_rounded(moments: Tensor) -> None:
    assert round_compensated(torch.ones(2, 4), moments.double(), INT4) is None


class Correlated(nn.Module):
    """Linear layers over inputs that a few numbers make, as the layers of trained models read them."""

    input_shape = (16,)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.mix, self.wide, self.head = nn.Linear(16, 96, bias=False), nn.Linear(96, 64), nn.Linear(64, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        answers: Tensor = self.head(torch.relu(self.wide(self.mix(inputs))))
        return answers


class Tokens(nn.Module):
    """Linear layers over tokens, which are written as MatMul."""

    input_shape = (5, 16)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.wide, self.head = nn.Linear(16, 96), nn.Linear(96, 64), nn.Linear(64, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        answers: Tensor = self.head(torch.tanh(self.wide(self.mix(inputs)))).mean(dim=1)
        return answers


def model_of(module: nn.Module, signature: Signature | None = None) -> FloatModel:
    return float_model_of(Candidate(module.eval()), signature or single(module.input_shape))  # type: ignore[arg-type]


def able(model: FloatModel, scheme: str) -> list[Layer]:
    return [layer for layer in model.layers if scheme_of(QuantizeScheme(scheme)).why_kept(layer) is None]


def weights(model: FloatModel | LeanModel) -> dict[str, NDArray[np.float32]]:
    lean = model.lean() if isinstance(model, FloatModel) else model
    return {constant.name: lean.array(constant) for constant in lean.proto.graph.initializer}


def answers(model: FloatModel, samples: Samples, serve: Serve = here) -> NDArray[np.float64]:
    return serve(written(model.lean()), samples.inputs)


def written(model: LeanModel) -> bytes:
    scratch = Scratch()
    model.write(scratch.path / "whole.onnx")
    return (scratch.path / "whole.onnx").read_bytes()


SCHEMES = {
    "Int8Static, 7 bits": ("Int8Static", 7),
    "Int8Static, 8 bits": ("Int8Static", 8),
    "Int8Dynamic, 7 bits": ("Int8Dynamic", 7),
    "Int8Dynamic, 8 bits": ("Int8Dynamic", 8),
    "Int4WeightOnly": ("Int4WeightOnly", None),
}


def grid_of(bits: int | None) -> Grid:
    return INT4 if bits is None else INT8[bits]


@pytest.mark.parametrize("build", [Correlated, Tokens, PlainCNN])
@pytest.mark.parametrize(("name", "bits"), SCHEMES.values(), ids=SCHEMES)
def test_what_is_stored_is_what_was_rounded(build: Callable[[], nn.Module], name: str, bits: int | None) -> None:
    """Scales are those of the weights as they were, and integers times scales the weights as they became."""
    torch.manual_seed(0)
    model = model_of(build())
    samples = samples_of(build.input_shape, 128)  # type: ignore[attr-defined]
    scheme = scheme_of(QuantizeScheme(name), weight_bits=bits)
    layers = able(model, name)
    refined = compensate(model, layers, samples, grid_of(bits))
    assert refined.changed.keys() == {layer.node for layer in layers}
    assert not refined.left
    before, after = (
        weights(scheme.convert(one, layers, observe_ranges(one, samples))) for one in (model, refined.model)
    )
    assert before.keys() == after.keys()
    changed = weights(refined.model)
    for layer in layers:
        (stored,) = (one for one in after if one.startswith(layer.weight) and one.endswith(("_quantized", "_Q4")))
        scale = stored.replace("_quantized", "_scale").replace("_Q4", "_scales")
        assert np.allclose(before[scale], after[scale], rtol=1e-6, atol=0)
        assert not np.array_equal(before[stored], after[stored])
        given = changed[layer.weight]
        turned = layer.operator == "Gemm" and name != "Int8Static"
        assert np.allclose(restore(after[stored], after[scale], given.shape, turned), given, rtol=1e-5, atol=1e-7)


def restore(
    stored: NDArray[Any], scale: NDArray[np.float32], shape: tuple[int, ...], turned: bool
) -> NDArray[np.float32]:
    """Return the weight that integers and scales stand for; `turned` if it became that of a MatMul."""
    if stored.dtype == np.uint8:
        outputs, blocks, _ = stored.shape
        integers = np.stack([stored % 16, stored // 16], axis=-1).reshape(outputs, blocks, -1).astype(np.float32) - 8
        rows = (integers * scale.reshape(outputs, blocks, 1)).reshape(outputs, -1)
        return rows[:, : shape[1]] if turned else rows[:, : shape[0]].T
    if turned:
        return (stored * scale.reshape(1, -1)).T.astype(np.float32)
    axis = 0 if len(shape) > 2 or len(scale) == shape[0] != shape[1] else 1
    sizes = [1] * len(shape)
    sizes[axis] = -1
    return (stored * scale.reshape(sizes)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "bits", "share"), [("Int4WeightOnly", None, 0.8), ("Int8Dynamic", 7, 0.95)])
def test_what_is_served_is_nearer_on_data_that_was_not_seen(
    name: str, bits: int | None, share: float, seed: int, serve: Serve
) -> None:
    model, calibration = model_of(Correlated(seed)), samples_of((16,), 512)
    unseen = samples_of((16,), 256, seed=9)
    layers = able(model, name)
    scheme = scheme_of(QuantizeScheme(name), weight_bits=bits)
    refined = compensate(model, layers, calibration, grid_of(bits)).model
    expected = answers(model, unseen)
    plain, made = (
        float(np.linalg.norm(serve(written(scheme.convert(one, layers, None)), unseen.inputs) - expected))
        for one in (model, refined)
    )
    assert made < share * plain


def test_what_stands_in_padding_changes_nothing() -> None:
    model, samples = model_of(tiny_bert(), TEXT), sentences()
    mask, words = samples.inputs["attention_mask"], samples.inputs["input_ids"]
    others = np.random.default_rng(5).integers(0, VOCABULARY, words.shape)
    filled = replace(samples, inputs={"input_ids": np.where(mask == 1, words, others), "attention_mask": mask})
    layers = able(model, "Int4WeightOnly")
    first, second = (weights(compensate(model, layers, one, INT4).model) for one in (samples, filled))
    whole = weights(compensate(model, layers, replace(filled, inputs=unmasked(filled)), INT4).model)
    names = {layer.weight for layer in layers}
    assert np.mean([np.isclose(first[name], second[name]).mean() for name in names]) > 0.999
    assert np.mean([np.isclose(first[name], whole[name]).mean() for name in names]) < 0.99


def unmasked(samples: Samples) -> dict[str, NDArray[np.int64]]:
    return {**samples.inputs, "attention_mask": np.ones_like(samples.inputs["attention_mask"])}


class Tied(nn.Module):
    """A layer that is called twice, and an embedding whose weight also makes the answers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.twice = nn.Embedding(64, 32), nn.Linear(32, 32)
        self.head = nn.Linear(32, 64)
        self.head.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        hidden = torch.relu(self.twice(torch.tanh(self.twice(self.words(words).mean(dim=1)))))
        answers: Tensor = self.head(hidden)
        return answers


def test_a_weight_that_two_layers_share_is_rounded_for_both_and_one_that_others_look_up_is_left() -> None:
    model = model_of(Tied(), (Input("words", (6,), "int64", 64),))
    words = np.random.default_rng(0).integers(0, 64, (200, 6))
    samples = Samples({"words": words}, None, "")
    layers = [layer for layer in model.layers if layer.operator != "Gather"]
    refined = compensate(model, layers, samples, INT4)
    before, after = weights(model), weights(refined.model)
    *shared, head = layers
    assert [layer.weight for layer in layers] == ["twice.weight", "twice.weight", "words.weight"]
    assert refined.changed.keys() == {layer.node for layer in shared}
    assert refined.left == {head.node: "its weight is read elsewhere too"}
    assert np.array_equal(before["words.weight"], after["words.weight"])
    module = Tied()
    with torch.no_grad():
        module.twice.weight.copy_(INT4.round(module.twice.weight))
        nearest = module.eval()(torch.from_numpy(words)).numpy()
    expected, given = answers(model, samples), answers(refined.model, samples)
    assert np.linalg.norm(given - expected) < np.linalg.norm(nearest - expected)


def test_moments_are_held_for_as_many_layers_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = model_of(Tokens()), samples_of(Tokens.input_shape, 64)
    layers = able(model, "Int4WeightOnly")
    at_once = weights(compensate(model, layers, samples, INT4).model)
    monkeypatch.setattr(moments_module, "MOST_BYTES", 1)
    assert all(
        np.array_equal(array, at_once[name])
        for name, array in weights(compensate(model, layers, samples, INT4).model).items()
    )


def test_layers_that_stay_float_get_their_weights_back() -> None:
    model, samples = model_of(Tokens()), samples_of(Tokens.input_shape, 64)
    layers = able(model, "Int4WeightOnly")
    refined = compensate(model, layers, samples, INT4).model
    before, made, mixed = weights(model), weights(refined), weights(restored(refined, model, layers[:1]))
    first, *others = (layer.weight for layer in layers)
    assert np.array_equal(mixed[first], before[first])
    assert not np.array_equal(made[first], before[first])
    assert all(np.array_equal(mixed[name], made[name]) for name in others)


def test_convolutions_are_rounded_but_for_those_in_groups() -> None:
    torch.manual_seed(0)
    model, samples = model_of(DepthwiseSeparable()), samples_of(DepthwiseSeparable.input_shape, 64)
    refined = compensate(model, model.layers, samples, INT8[7])
    by_name = {layer.node: layer.name for layer in model.layers}
    assert {by_name[node] for node in refined.changed} == {"first", "pointwise", "head"}
    assert {by_name[node]: why for node, why in refined.left.items()} == {"depthwise": "its inputs are in groups"}
    assert all(share < 1 for share in refined.changed.values())
