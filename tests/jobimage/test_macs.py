"""Multiply-accumulates of every kind of layer, by hand; what cannot be counted is unknown, never nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tests.api.reports import report
from tests.jobimage.bench import bench_of, candidate_of, samples_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from plimsoll_api.gate import judge
from plimsoll_api.gates import Gate
from plimsoll_api.spec import Prune, Quantize
from plimsoll_api.verdict import Verdict
from plimsoll_job.errors import UserError
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.export.macs import Macs, count_graph
from plimsoll_job.figures import count, count_macs
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import prune, quantize
from plimsoll_job.zoo import digits_cnn


class Last(nn.Module):
    """The answers of a recurrent layer at the last step."""

    def __init__(self, layer: nn.Module, *, first: bool = False) -> None:
        super().__init__()
        self.layer, self.first = layer, first

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.layer(steps if self.first else steps.transpose(0, 1))[0]
        return answers[:, -1] if self.first else answers[-1]


class Products(nn.Module):
    """Activations times activations, as MatMul and as Einsum."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scores = rows @ rows.transpose(1, 2)
        summed: torch.Tensor = torch.einsum("bij,bjd->bid", scores, rows)
        return summed


class Written(nn.Module):
    """A linear layer as a product that broadcasts and a sum of it, by way of another layout if so wanted."""

    def __init__(self, *, turned: bool = False) -> None:
        super().__init__()
        self.weight, self.turned = nn.Parameter(torch.ones(7, 5)), turned

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        products = rows[:, :, None] * self.weight
        return products.transpose(1, 2).sum(2) if self.turned else products.sum(1)


class Normed(nn.Module):
    """Rows over the root of the sum of their squares: a norm, which counts nothing."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows / (rows * rows).sum(1, keepdim=True).sqrt()


class Attends(nn.Module):
    """torch's attention of a sequence to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.attention(rows, rows, rows, need_weights=False)[0]
        return answers


def lstm(*sizes: int, **more: Any) -> Last:
    return Last(nn.LSTM(*sizes, batch_first=True, **more), first=True)


BY_HAND: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "linear": (lambda: nn.Linear(7, 5), (7,), 7 * 5),
    "linear of each of 3 rows": (lambda: nn.Linear(7, 5), (3, 7), 3 * 7 * 5),
    "convolution of 6x6 outputs": (lambda: nn.Conv2d(4, 8, 3), (4, 8, 8), 36 * 8 * 4 * 9),
    "padded and strided, 4x4": (lambda: nn.Conv2d(4, 8, 3, 2, 1), (4, 8, 8), 16 * 8 * 4 * 9),
    "dilated in two groups": (lambda: nn.Conv2d(4, 8, 3, dilation=2, groups=2), (4, 8, 8), 16 * 8 * 2 * 9),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6), (6, 5, 5), 25 * 6 * 9),
    "one dimension": (lambda: nn.Conv1d(3, 4, 5), (3, 9), 5 * 4 * 3 * 5),
    "three dimensions": (lambda: nn.Conv3d(2, 3, 2), (2, 4, 4, 4), 27 * 3 * 2 * 8),
    "transposed, of 4x4 inputs": (lambda: nn.ConvTranspose2d(3, 8, 3, 2, 1, 1), (3, 4, 4), 16 * 3 * 8 * 9),
    "transposed in two groups": (lambda: nn.ConvTranspose2d(4, 8, 4, 2, 1, groups=2), (4, 4, 4), 16 * 4 * 4 * 16),
    "transposed, one dimension": (lambda: nn.ConvTranspose1d(3, 2, 5, 3), (3, 7), 7 * 3 * 2 * 5),
    "LSTM of 5 steps": (lambda: lstm(6, 8), (5, 6), 5 * 4 * 8 * (6 + 8)),
    "LSTM of two layers": (lambda: lstm(6, 8, num_layers=2), (5, 6), 5 * 4 * 8 * (6 + 8 + 8 + 8)),
    "LSTM in both directions": (
        lambda: lstm(6, 8, num_layers=2, bidirectional=True), (5, 6), 5 * 2 * 4 * 8 * (6 + 8 + 16 + 8)
    ),
    "LSTM, batch second": (lambda: Last(nn.LSTM(6, 8)), (5, 6), 5 * 4 * 8 * (6 + 8)),
    "GRU": (lambda: Last(nn.GRU(6, 8)), (5, 6), 5 * 3 * 8 * (6 + 8)),
    "RNN": (lambda: Last(nn.RNN(6, 8)), (5, 6), 5 * 8 * (6 + 8)),
    "a product and a sum": (Written, (7,), 7 * 5),
    "a product and a sum, turned": (lambda: Written(turned=True), (7,), 7 * 5),
    "a norm of squares": (Normed, (7,), 0),
    "products of activations": (Products, (5, 6), 2 * 5 * 5 * 6),
    "normalisation and pooling": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()), (3, 4, 4), 0
    ),
    "attention of 2 heads": (lambda: Attends(8, 2), (5, 8), 5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8),
}  # fmt: skip


@pytest.mark.parametrize("kind", BY_HAND)
def test_each_kind_of_layer_counts_what_it_multiplies_of_one_sample(kind: str) -> None:
    build, shape, expected = BY_HAND[kind]
    assert count(build().eval(), single(shape)).macs == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0", "vit_b_32", "swin_t"]
)
def test_torchs_own_counter_counts_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")
    module, signature = torchvision.models.get_model(name, num_classes=10).eval(), single((3, 224, 224))
    # What torch's attention computes at once, its counter passes over.
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        module(*example_of(signature, 1))
    assert count_macs(module, signature).total == counter.get_total_flops() // 2


def test_the_amount_of_multiply_accumulates_is_refused_where_they_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    module = digits_cnn().eval()
    monkeypatch.setattr("plimsoll_job.figures.count_graph", lambda *_: Macs(unknown=("Strange is unknown",)))
    bench = bench_of(module, signature=single((1, 8, 8)))
    settings = Prune.model_validate({"criterion": "Magnitude", "amount": "20%", "of": "Macs"})
    with pytest.raises(UserError, match=r"prune.of: the model's multiply-accumulates cannot be counted: Strange"):
        prune.apply(settings, candidate_of(module), bench)


@pytest.mark.parametrize("scheme", ["Int8Static", "Int8Dynamic", "Int4WeightOnly", "Float16"])
def test_a_quantized_graph_counts_what_its_float_model_does(scheme: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = digits_cnn().eval()
    bench = bench_of(module, calibration=samples_of((1, 8, 8), 64), signature=single((1, 8, 8)))
    graph = quantize.apply(Quantize.model_validate({"scheme": scheme}), candidate_of(module), bench).candidate.graph
    assert graph is not None
    counted = count_macs(module, bench.signature, graph.path)
    assert counted.total == count_macs(module, bench.signature).total
    assert not counted.unknown


def graph_of(*nodes: onnx.NodeProto, shape: tuple[int, ...] = (3, 4)) -> LeanModel:
    constant = helper.make_tensor("weight", TensorProto.FLOAT, [4, 2], [1.0] * 8)
    given = helper.make_tensor_value_info("inputs", TensorProto.FLOAT, list(shape))
    made = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "one", [given], [made], [constant])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return LeanModel(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def sample(*shape: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"inputs": np.ones(shape, np.float32)}


def test_fused_products_of_the_runtime_are_counted() -> None:
    fused = helper.make_node("FusedMatMul", ["inputs", "weight"], ["y"], "f", domain="com.microsoft", transA=1)
    assert count_graph(graph_of(fused, shape=(4, 3)), sample(4, 3)).total == 3 * 4 * 2


def test_an_operator_that_nobody_knows_makes_the_whole_unknown() -> None:
    known = helper.make_node("MatMul", ["inputs", "weight"], ["hidden"], "known")
    strange = helper.make_node("Inverse", ["hidden"], ["y"], "strange", domain="com.microsoft")
    counted = count_graph(graph_of(known, strange, shape=(2, 4)), sample(2, 4))
    assert counted.by_node == {"known": 2 * 4 * 2}
    assert counted.total is None
    assert counted.unknown == ("Inverse strange is an operator of com.microsoft",)


def test_what_runs_as_often_as_the_data_says_makes_the_whole_unknown() -> None:
    branches = [
        helper.make_graph(
            [helper.make_node("MatMul", ["inputs", "weight"], [name], name)],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name in ("this", "that")
    ]
    largest = helper.make_node("ReduceMax", ["inputs"], ["largest"], "largest", keepdims=0)
    decided = helper.make_node("Cast", ["largest"], ["decided"], "decided", to=TensorProto.BOOL)
    node = helper.make_node("If", ["decided"], ["y"], "choice", then_branch=branches[0], else_branch=branches[1])
    counted = count_graph(graph_of(largest, decided, node), sample(3, 4))
    assert counted.total is None
    assert counted.unknown == ("MatMul within If choice runs as often as its data says",)


def test_a_gate_on_unknown_counts_is_inconclusive_and_says_why() -> None:
    gate = Gate.model_validate({"metric": "macs", "minReduction": "1%"})
    measured = report()
    assert measured.baseline is not None
    baseline = measured.baseline.model_copy(
        update={"macs": None, "macs_unknown": "Strange is an operator of com.example"}
    )
    judgement = judge(measured.model_copy(update={"baseline": baseline}), [gate])
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "Strange is an operator of com.example" in judgement.checks[0].message
