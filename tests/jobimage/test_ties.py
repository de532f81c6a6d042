"""Weights that layers share, and layers of several calls or names: one before each step, one after it, counted once."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.jobimage.bench import bench_of, candidate_of, samples_of
from torch import nn

from plimsoll_api.artifact import MODEL_FILE
from plimsoll_api.sources import OutputFormat
from plimsoll_api.spec import Factorize, Prune, Quantize
from plimsoll_api.steps.distill import Distill
from plimsoll_job.export.onnx_export import export_onnx
from plimsoll_job.export.outputs import write_outputs
from plimsoll_job.export.reload import TORCH_FILE
from plimsoll_job.figures import count_parameters, weights_bytes
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import distill, factorize, quantize
from plimsoll_job.techniques.prune.plain import put_plain_layers
from plimsoll_job.techniques.prune.structured import prune_structured
from plimsoll_job.techniques.prune.unstructured import prune_unstructured
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Applied
from plimsoll_job.techniques.ties import ties_of

WIDTH = 16
SIGNATURE = single((WIDTH,))


class Towers(nn.Module):
    """Two layers of one weight, each of its own half of the inputs; answers that are compared, or side by side."""

    input_shape = (WIDTH,)

    def __init__(self, *, beside: bool = False, biases: bool = True, width: int = 32) -> None:
        super().__init__()
        self.beside = beside
        self.left, self.right = nn.Linear(8, width), nn.Linear(8, width)
        self.right.weight = self.left.weight
        if biases:
            self.right.bias = self.left.bias
        self.head = nn.Sequential(nn.Linear(2 * width if beside else width, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        left, right = self.left(inputs[:, :8]).relu(), self.right(inputs[:, 8:]).relu()
        answer: torch.Tensor = self.head(torch.cat([left, right], 1) if self.beside else (left - right).abs())
        return answer


class Readers(nn.Module):
    """Two layers of one weight that read what others write."""

    input_shape = (WIDTH,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 32), nn.Linear(8, 32)
        self.left, self.right = nn.Linear(32, 16), nn.Linear(32, 16)
        self.right.weight = self.left.weight
        self.head = nn.Linear(16, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        left, right = self.left(self.first(inputs[:, :8]).relu()), self.right(self.second(inputs[:, 8:]).relu())
        answer: torch.Tensor = self.head(left.relu() + right.relu())
        return answer


class Chain(nn.Module):
    """One weight after itself: two layers, or one that is called twice and has two names."""

    input_shape = (WIDTH,)

    def __init__(self, *, one: bool) -> None:
        super().__init__()
        self.first, self.left = nn.Linear(WIDTH, 24), nn.Linear(24, 24)
        self.right = self.left if one else nn.Linear(24, 24)
        self.right.weight, self.right.bias = self.left.weight, self.left.bias
        self.head = nn.Linear(24, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.right(self.left(self.first(inputs).relu()).relu()).relu())
        return answer


class Repeated(nn.Module):
    """A block of a transformer's kind that is called twice, as ALBERT's."""

    input_shape = (WIDTH,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(WIDTH, 12), nn.LayerNorm(12)
        self.up, self.down = nn.Linear(12, 40), nn.Linear(40, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.first(inputs)
        for _ in range(2):
            hidden = self.norm(hidden + self.down(self.up(hidden).relu()))
        answer: torch.Tensor = self.head(hidden)
        return answer


MODELS: dict[str, Any] = {
    "compared": Towers,
    "side by side": lambda: Towers(beside=True),
    "biases of their own": lambda: Towers(biases=False),
    "readers": Readers,
    "chain": lambda: Chain(one=False),
    "a layer of two names": lambda: Chain(one=True),
    "called twice": Repeated,
}


def made(kind: str) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = MODELS[kind]()
    return module.eval()


@pytest.mark.parametrize("criterion", ["Magnitude", "Taylor", "Redundancy"])
@pytest.mark.parametrize("kind", MODELS)
def test_layers_that_share_a_weight_shrink_alike_and_share_it_still(kind: str, criterion: str) -> None:
    module = made(kind)
    settings = Prune.model_validate({"criterion": criterion, "amount": "30%"})
    applied = prune_structured(settings, candidate_of(module), bench_of(module, calibration=samples_of((WIDTH,), 64)))
    pruned = applied.candidate.module
    assert ties_of(pruned) == ties_of(module)
    share = 1 - count_parameters(pruned) / count_parameters(module)
    assert applied.details["share"] == pytest.approx(share, abs=1e-5)
    assert 0.2 < share < 0.4
    if isinstance(module, Towers | Readers):
        assert module.left.weight.shape[0] > pruned.get_submodule("left").get_parameter("weight").shape[0]
    again = replay(copy.deepcopy(module), SIGNATURE, applied.candidate.changes)
    assert ties_of(again) == ties_of(module)
    again.load_state_dict(pruned.state_dict())
    inputs = torch.randn(8, WIDTH)
    torch.testing.assert_close(again(inputs), pruned(inputs))


def test_a_shared_weight_is_refitted_to_all_that_read_it() -> None:
    """Channels that repeat others in both producers can go without a trace, if the refit is one of both readers."""
    module = made("readers")
    assert isinstance(module, Readers)
    with torch.no_grad():
        for layer in (module.first, module.second):
            layer.weight[16:], layer.bias[16:] = layer.weight[:16].clone(), layer.bias[:16].clone()
    data = samples_of((WIDTH,), 256)
    settings = Prune.model_validate({"criterion": "Redundancy", "amount": "35%"})
    applied = prune_structured(settings, candidate_of(module), bench_of(module, calibration=data))
    assert applied.details["channels"]["first"][1] <= 20
    with torch.no_grad():
        inputs = torch.from_numpy(data.inputs["inputs"])
        wanted, given = module(inputs), applied.candidate.module(inputs)
    assert float((given - wanted).abs().max()) < 0.01 * float(wanted.abs().max())


def step(kind: str, module: nn.Module) -> Applied:
    data = samples_of((WIDTH,), 64)
    bench, candidate = bench_of(module, train=data, calibration=data), candidate_of(module)
    if kind == "zeros":
        settings = Prune.model_validate({"criterion": "Magnitude", "granularity": "Unstructured", "amount": "40%"})
        return prune_unstructured(settings, candidate, bench)
    if kind == "factors":
        return factorize.apply(Factorize.model_validate({"method": "Svd", "amount": "10%"}), candidate, bench)
    return distill.apply(Distill.model_validate({"epochs": 2, "batchSize": 16}), candidate, bench)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("technique", ["zeros", "factors", "distill"])
def test_no_other_step_parts_them(technique: str, kind: str) -> None:
    module = Towers(width=64) if technique == "factors" else made(kind)
    applied = step(technique, module.eval())
    assert ties_of(applied.candidate.module) == ties_of(module)
    if technique == "factors":
        assert {one.layer for one in applied.left} >= {"left", "right"}


@pytest.mark.parametrize("scheme", ["Int8Static", "Int8Dynamic", "Float16"])
def test_a_shared_weight_is_stored_once_in_a_quantized_model(scheme: str) -> None:
    sizes = []
    for tied in (True, False):
        torch.manual_seed(0)
        module = Towers(width=256).eval()
        if not tied:
            module.right.weight = nn.Parameter(module.left.weight.detach() + 0.01 * torch.randn(256, 8))
        data = samples_of((WIDTH,), 64)
        applied = quantize.apply(
            Quantize.model_validate({"scheme": scheme}), candidate_of(module), bench_of(module, calibration=data)
        )
        assert applied.candidate.graph is not None
        sizes.append(applied.candidate.graph.size_bytes)
    assert sizes[1] - sizes[0] > 0.9 * 256 * 8 * (2 if scheme == "Float16" else 1)


def test_a_shared_weight_is_written_once_in_every_format_and_counted_once(tmp_path: Path) -> None:
    module = Towers(width=2048).eval()
    formats = [OutputFormat.ONNX, OutputFormat.TORCH_EXPORT]
    bench = bench_of(module)
    write_outputs(
        candidate_of(module), bench.source, SIGNATURE, "TabularClassification", formats=formats, directory=tmp_path
    )
    once = 4 * count_parameters(module)
    assert weights_bytes(module) == once
    for name in (MODEL_FILE, TORCH_FILE):
        assert (tmp_path / name).stat().st_size < once + 4 * 2048 * 8


class Blocks(nn.Module):
    """torch's attention, whose projections become layers: one block of two names, or two that share weights."""

    def __init__(self, *, one: bool) -> None:
        super().__init__()
        self.left, self.right = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        if one:
            self.right = self.left
        else:
            self.right.in_proj_weight, self.right.in_proj_bias = self.left.in_proj_weight, self.left.in_proj_bias
            self.right.out_proj = self.left.out_proj

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for attention in (self.left, self.right):
            inputs = inputs + attention(inputs, inputs, inputs)[0]
        return inputs


@pytest.mark.parametrize("one", [True, False])
def test_layers_that_take_the_place_of_an_attention_share_what_it_shared(one: bool) -> None:
    module, inputs = Blocks(one=one).eval(), torch.randn(2, 3, 8)
    wanted, parameters = module(inputs), count_parameters(module)
    put_plain_layers(module)
    torch.testing.assert_close(module(inputs), wanted)
    assert count_parameters(module) == parameters
    assert (module.left is module.right) is one


def test_a_shared_weight_is_one_constant_of_the_graph(tmp_path: Path) -> None:
    export_onnx(made("chain"), SIGNATURE, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size < 4 * count_parameters(made("chain")) + 24 * 24 * 4
