"""Channels become alike where int8 layers read them; the float model's answers stay what they were to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tests.jobimage.architectures import CLASSIFIERS, TRANSFORMERS
from tests.jobimage.bench import samples_of
from tests.jobimage.haswell import Serve
from tests.jobimage.modules import DepthwiseSeparable, Flattened, Grouped, PlainCNN
from tests.jobimage.test_quantize_gptq import able, model_of, written
from tests.jobimage.test_quantize_region import Vision
from tests.jobimage.texts import TEXT, VOCABULARY, sentences
from torch import Tensor, nn

from plimsoll_api.spec import QuantizeScheme
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import Signature
from plimsoll_job.sessions import open_frugally
from plimsoll_job.techniques.quantize.fidelity import answers
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.ranges import observe_ranges
from plimsoll_job.techniques.quantize.refine import smooth as smoothing
from plimsoll_job.techniques.quantize.refine.grid import INT8
from plimsoll_job.techniques.quantize.refine.refined import Refined
from plimsoll_job.techniques.quantize.refine.smooth import smooth
from plimsoll_job.techniques.quantize.schemes import scheme_of

GRID = INT8[7]
#: Channels that are far larger than the others, and by how much.
OUTLIERS = {3: 30.0, 17: 100.0, 40: 60.0}


class Migrated(Vision):
    """As trained transformers are: some channels behind each norm are far larger, their weights smaller."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__()
        factors = torch.ones(64)
        factors[list(OUTLIERS)] = torch.tensor(list(OUTLIERS.values()))
        with torch.no_grad():
            for block in self.encoder.layers:
                for norm, weight in (
                    (block.ln_1, block.self_attention.in_proj_weight),
                    (block.ln_2, block.mlp[0].weight),
                ):
                    norm.weight.mul_(factors)
                    norm.bias.normal_(std=0.3).mul_(factors)
                    weight.div_(factors)


class RMSNorm(nn.Module):
    """As models of transformers write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.weight * (inputs * torch.rsqrt(inputs.square().mean(dim=-1, keepdim=True) + 1e-6))


class Gated(nn.Module):
    """A block as in LLaMA: norms without means, three layers of one input, and a product of two behind them."""

    input_shape = (6, 32)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = RMSNorm(32), RMSNorm(32)
        self.query, self.key, self.value = (nn.Linear(32, 32, bias=False) for _ in range(3))
        self.gate, self.up, self.down = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 4)
        with torch.no_grad():
            self.before.weight[5] = 40
            self.up.weight[7] *= 50

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.before(inputs)
        scores = self.query(hidden) @ self.key(hidden).transpose(1, 2) / 6
        inputs = inputs + scores.softmax(dim=2) @ self.value(hidden)
        hidden = self.after(inputs)
        inputs = inputs + self.down(nn.functional.silu(self.gate(hidden)) * self.up(hidden))
        answers: Tensor = self.head(inputs[:, 0])
        return answers


def floats(model: FloatModel, samples: Samples) -> NDArray[np.float64]:
    """Return the answers as the graph stands, node for node."""
    return answers(open_frugally(model.path, as_it_is=True), samples)


def names(refined: Refined, nodes: Any) -> set[str]:
    by_node = {layer.node: layer.name for layer in refined.model.layers}
    return {by_node[node] for node in nodes}


@pytest.mark.parametrize("seed", range(2))
def test_outliers_cost_int8_a_tenth_of_what_they_did(seed: int, serve: Serve) -> None:
    model, samples = model_of(Migrated(seed)), samples_of(Vision.input_shape, 64)
    unseen = samples_of(Vision.input_shape, 32, seed=3)
    layers, scheme = able(model, "Int8Static"), scheme_of(QuantizeScheme("Int8Static"))
    refined = smooth(model, layers, samples, GRID)
    assert np.array_equal(floats(refined.model, unseen), floats(model, unseen))
    assert len(refined.changed) >= 12
    expected = floats(model, unseen)
    plain, made = (
        np.linalg.norm(
            serve(written(scheme.convert(one, layers, observe_ranges(one, samples))), unseen.inputs) - expected
        )
        for one in (model, refined.model)
    )
    assert made < 0.1 * plain


def test_the_record_tells_each_layer_that_was_changed_and_why_each_other_was_not() -> None:
    model, samples = model_of(Migrated()), samples_of(Vision.input_shape, 64)
    layers = able(model, "Int8Static")
    refined = smooth(model, layers, samples, GRID)
    assert refined.changed.keys() | refined.left.keys() == {layer.node for layer in layers}
    assert not refined.changed.keys() & refined.left.keys()
    assert set(refined.left.values()) == {
        "a Erf reads its channels too",
        "nothing that makes its channels can take factors",
    }


def test_layers_of_one_input_change_together_and_a_product_passes_factors_on() -> None:
    model, samples = model_of(Gated()), samples_of(Gated.input_shape, 64)
    refined = smooth(model, model.layers, samples, GRID)
    assert {"query", "key", "value", "down"} <= names(refined, refined.changed)
    assert np.array_equal(floats(refined.model, samples), floats(model, samples))


def test_channels_that_are_of_like_sizes_stay_as_they_are() -> None:
    model, samples = model_of(Vision()), samples_of(Vision.input_shape, 64)
    refined = smooth(model, able(model, "Int8Static"), samples, GRID)
    assert not refined.changed
    assert refined.model is model


class Branched(nn.Module):
    """A norm with an outlier, read by a layer and by something else."""

    input_shape = (6, 16)

    def __init__(self, other: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.layer, self.head = nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.other = other
        with torch.no_grad():
            self.norm.weight[2] = 100

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(inputs)
        answered = torch.tanh(self.layer(hidden))
        if self.other is not None:
            answered = answered + self.other(hidden)
        answers: Tensor = self.head(answered)
        return answers


BRANCHES: dict[str, tuple[Callable[[Tensor], Tensor] | None, str | None]] = {
    "nothing else": (None, None),
    "the sum that leads around": (lambda hidden: hidden, "an Add of what is computed reads its channels"),
    "a sigmoid": (torch.sigmoid, "a Sigmoid reads its channels too"),
    "a sum over the channels": (
        lambda hidden: hidden.mean(dim=-1, keepdim=True),
        "a ReduceMean adds its channels up",
    ),
    "its own square": (lambda hidden: hidden * hidden, "a Mul reads its channels more than once"),
    "what turns the channels": (
        lambda hidden: hidden.reshape(-1, 3, 32).reshape(-1, 6, 16),
        "a Reshape mixes its channels",
    ),
    "what picks among them": (lambda hidden: hidden[..., :1], "a Slice picks among its channels"),
}


@pytest.mark.parametrize(("other", "why"), BRANCHES.values(), ids=BRANCHES)
def test_channels_that_something_else_reads_are_left(other: Callable[[Tensor], Tensor] | None, why: str | None) -> None:
    model, samples = model_of(Branched(other)), samples_of(Branched.input_shape, 40)
    refined = smooth(model, model.layers, samples, GRID)
    changed = names(refined, refined.changed)
    assert ("layer" in changed) == (why is None)
    assert why is None or why in refined.left.values()
    assert np.array_equal(floats(refined.model, samples), floats(model, samples))


class Twice(nn.Module):
    """A layer that reads what the norm answers, and is called once more behind it."""

    input_shape = (16,)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.layer, self.head = nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 3)
        with torch.no_grad():
            self.norm.weight[2] = 100

    def forward(self, inputs: Tensor) -> Tensor:
        answers: Tensor = self.head(torch.tanh(self.layer(torch.tanh(self.layer(self.norm(inputs))))))
        return answers


def test_a_weight_that_is_read_twice_takes_no_factors() -> None:
    model, samples = model_of(Twice()), samples_of(Twice.input_shape, 40)
    assert len({layer.weight for layer in model.layers}) < len(model.layers)
    refined = smooth(model, model.layers, samples, GRID)
    assert not refined.changed
    assert "a weight that is multiplied with its channels is read elsewhere too" in refined.left.values()


class Dead(nn.Module):
    """Channels that are never active, that nothing is made of, and that are far larger than the others."""

    input_shape = (8,)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.first.weight[:2] = 0
            self.first.bias[:2] = torch.tensor([0.0, -1.0])
            self.second.weight[:, 2] = 0
            self.first.weight[5] *= 300

    def forward(self, inputs: Tensor) -> Tensor:
        answers: Tensor = self.second(torch.relu(self.first(inputs)))
        return answers


class Single(nn.Module):
    """One channel between two layers."""

    input_shape = (3,)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 1), nn.Linear(1, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        answers: Tensor = self.second(torch.relu(self.first(inputs)))
        return answers


def test_channels_that_the_model_answers_with_are_left() -> None:
    model, samples = model_of(Dead()), samples_of(Dead.input_shape, 64)
    graph = model.lean()
    (rectifier,) = (node for node in graph.proto.graph.node if node.op_type == "Relu")
    graph.proto.graph.output.append(helper.make_tensor_value_info(rectifier.output[0], TensorProto.FLOAT, [None, 16]))
    refined = smooth(FloatModel.of(graph, model.layers), model.layers, samples, GRID)
    assert not refined.changed
    assert "the model answers with its channels" in refined.left.values()


def test_channels_that_are_never_active_or_have_no_weights_keep_the_factor_one() -> None:
    model, samples = model_of(Dead()), samples_of(Dead.input_shape, 64)
    refined = smooth(model, model.layers, samples, GRID)
    assert names(refined, refined.changed) == {"second"}
    given, made = (
        {one.name: lean.array(one) for one in lean.proto.graph.initializer}
        for lean in (model.lean(), refined.model.lean())
    )
    assert np.array_equal(given["first.weight"][:3], made["first.weight"][:3])
    assert np.array_equal(given["second.weight"][:, :3], made["second.weight"][:, :3])
    assert np.array_equal(floats(refined.model, samples), floats(model, samples))


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every place takes factors, whatever they are good for."""
    chance = torch.Generator().manual_seed(0)

    def choose(_: Any, place: Any, *__: Any) -> tuple[Tensor, float]:
        return torch.randint(-3, 4, (place.channels,), generator=chance).double().exp2(), 0.5

    monkeypatch.setattr(smoothing, "_choose", choose)


PLACES = {
    "gpt2": 5,
    "vit": 9,
    "convnext": 9,
    "mobilenet_v3_small": 16,
}


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("build", [Gated, Flattened, PlainCNN, DepthwiseSeparable, Grouped, Single])
def test_any_factors_leave_float_answers_to_the_last_bit(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, samples = model_of(build()), samples_of(build.input_shape, 5)  # type: ignore[attr-defined]
    refined = smooth(model, model.layers, samples, GRID)
    assert refined.changed
    assert np.array_equal(floats(refined.model, samples), floats(model, samples))


@pytest.mark.slow
@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("name", PLACES)
def test_any_factors_leave_float_answers_of_known_architectures(name: str) -> None:
    torch.manual_seed(0)
    build, signature = (TRANSFORMERS | CLASSIFIERS)[name]
    model, samples = model_of(build(), signature), drawn(signature)
    refined = smooth(model, model.layers, samples, GRID)
    assert len(refined.changed) == PLACES[name]
    assert np.array_equal(floats(refined.model, samples), floats(model, samples))


def drawn(signature: Signature, count: int = 3) -> Samples:
    chance = np.random.default_rng(0)
    inputs: dict[str, NDArray[Any]] = {
        one.name: chance.standard_normal((count, *one.shape)).astype(np.float32)
        if one.dtype == "float32"
        else np.ones((count, *one.shape), np.int64)
        if "mask" in one.name
        else chance.integers(1, 100, (count, *one.shape))
        for one in signature
    }
    return Samples(inputs, None, "")


def test_a_model_whose_answers_would_change_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a graph be read wrongly, that shows in its answers."""
    model, samples = model_of(Dead()), samples_of(Dead.input_shape, 64)
    monkeypatch.setattr(smoothing, "_multiply", _multiply_weights_only(smoothing._multiply))
    refined = smooth(model, model.layers, samples, GRID)
    assert not refined.changed
    assert refined.model is model
    assert "the float answers would change" in refined.left.values()


def _multiply_weights_only(multiply: Callable[..., None]) -> Callable[..., None]:
    def changed(model: Any, factor: Any, factors: Tensor) -> None:
        multiply(model, factor, factors.clamp(min=1))

    return changed


class Words(nn.Module):
    """A norm behind an embedding, of whose words one that is found in padding alone is far larger in a channel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.before, self.layer = nn.Embedding(VOCABULARY, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.head = nn.Linear(32, 4)
        with torch.no_grad():
            self.words.weight[0] = 0
            self.words.weight[0, 0] = 1000

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = torch.tanh(self.layer(torch.relu(self.before(self.words(input_ids)))))
        weight = attention_mask[..., None].float()
        answers: Tensor = self.head((hidden * weight).sum(dim=1) / weight.sum(dim=1))
        return answers


def test_what_stands_in_padding_is_no_outlier() -> None:
    model, samples = model_of(Words(), TEXT), sentences()
    words = np.where(samples.inputs["attention_mask"] == 1, samples.inputs["input_ids"].clip(min=1), 0)
    padded = Samples({**samples.inputs, "input_ids": words}, None, "")
    refined = smooth(model, model.layers, padded, GRID)
    assert "layer" not in names(refined, refined.changed)
    whole = Samples({**padded.inputs, "attention_mask": np.ones_like(words)}, None, "")
    refined = smooth(model, model.layers, whole, GRID)
    assert "layer" in names(refined, refined.changed)
