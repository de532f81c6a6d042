"""What a step left whole, dense or float is named with its share of the bytes, known to its technique or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from onnx import TensorProto, helper
from tests.jobimage.bench import bench_of, candidate_of, samples_of
from tests.jobimage.modules import PlainCNN
from torch import nn

from plimsoll_api.artifact import Leftover
from plimsoll_api.spec import Step
from plimsoll_job.compress import left_by
from plimsoll_job.errors import UserError
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.figures import count_parameters
from plimsoll_job.techniques.left import MOST, held_by_layer, leave, left_in_graph, left_in_module
from plimsoll_job.techniques.table import TECHNIQUES, technique_of


class Reads(nn.Module):
    """A layer of no known kind, which holds most of the weights, between two that everything knows."""

    input_shape = (6, 8)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 8))
        self.core = nn.LSTM(8, 32, batch_first=True)
        self.norm = nn.LayerNorm(32)
        self.last = nn.Linear(32, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.norm(self.core(self.first(rows))[0][:, -1]))
        return logits


class Answers(nn.Module):
    """The last of a recurrent layer's answers."""

    def forward(self, answers: tuple[torch.Tensor, object]) -> torch.Tensor:
        return answers[0][:, -1]


def left_of(module: nn.Module, **step: dict[str, Any]) -> dict[str, Leftover]:
    parsed = Step.model_validate(step)
    technique = technique_of(parsed)
    shape: tuple[int, ...] = module.input_shape  # type: ignore[assignment]
    before = held_by_layer(module)
    bench = bench_of(module, calibration=samples_of(shape, 64))
    applied = TECHNIQUES[technique](getattr(parsed, technique), candidate_of(module), bench)
    return {one.layer: one for one in left_by(technique, before, applied)}


def share_of(module: nn.Module, name: str) -> float:
    return round(count_parameters(module.get_submodule(name)) / count_parameters(module), 6)


@pytest.mark.parametrize(
    "step",
    [
        {"factorize": {"method": "Svd", "keep": "50%"}},
        {"quantize": {"scheme": "Int4WeightOnly"}},
    ],
    ids=["factorize", "Int4WeightOnly"],
)
def test_a_layer_of_a_kind_that_the_step_does_not_know_is_named_with_its_share(step: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = Reads().eval()
    left = left_of(module, **step)
    (name,) = (one for one in left if "core" in one)
    assert left[name].kind == "LSTM"
    assert left[name].share == pytest.approx(share_of(module, "core"), abs=0.01)
    assert left[name].reason


def test_layers_that_could_have_lost_channels_are_not_named() -> None:
    torch.manual_seed(0)
    assert left_of(PlainCNN().eval(), prune={"criterion": "Magnitude", "amount": "10%"}) == {}


def test_a_layer_that_stays_float_by_name_is_named() -> None:
    torch.manual_seed(0)
    module = PlainCNN().eval()
    left = left_of(module, quantize={"scheme": "Int8Static", "exclude": {"layers": ["body.3"]}})
    assert left.keys() == {"body.3"}
    assert left["body.3"].reason == "exclude.layers names body.3"
    assert left["body.3"].share == pytest.approx(share_of(module, "body.3"), rel=0.1)


def test_a_pattern_names_the_layer_that_it_does_not_divide() -> None:
    torch.manual_seed(0)
    left = left_of(PlainCNN().eval(), prune={"criterion": "Magnitude", "granularity": "NofM", "pattern": "2:4"})
    assert left.keys() == {"body.0"}
    assert "the pattern does not divide what it reads" in left["body.0"].reason


def test_a_reason_for_what_lies_around_layers_holds_for_all_of_them() -> None:
    module = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 4))
    held = held_by_layer(module)
    told = left_in_module(
        held, held, [leave("0", "attention", "its heads are unknown")], {"1.weight"}, lambda kind: "unknown"
    )
    assert told == [Leftover(layer="0", kind="attention", share=round(2 / 3, 6), reason="its heads are unknown")]


def test_what_took_the_place_of_a_layer_counts_as_that_layer() -> None:
    before = held_by_layer(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 2)))
    smaller = nn.Sequential(nn.Linear(16, 3, bias=False), nn.Linear(3, 16))
    after = held_by_layer(nn.Sequential(smaller, nn.Linear(16, 2)))
    assert [one.layer for one in left_in_module(before, after, [], (), lambda kind: "unknown")] == ["1"]


def test_a_record_stays_short_and_its_shares_whole() -> None:
    held = held_by_layer(nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3 * MOST))))
    told = left_in_module(held, held, [], (), lambda kind: "unknown")
    assert len(told) == MOST
    assert told[-1].layer == f"{2 * MOST + 1} others"
    assert sum(one.share for one in told) == pytest.approx(1, abs=1e-4)


def test_float_constants_that_no_layer_reads_are_named_by_their_node() -> None:
    def graph(weight: str, kind: int) -> LeanModel:
        nodes = [
            helper.make_node("Add", ["inputs", "positions"], ["placed"], name="/embed/Add"),
            helper.make_node("MatMul", ["placed", "weight"], ["logits"], name="/head/MatMul"),
        ]
        constants = [
            helper.make_tensor("positions", TensorProto.FLOAT, [3, 4], [1.0] * 12),
            helper.make_tensor(weight, kind, [3, 4], [1] * 12),
        ]
        return LeanModel(helper.make_model(helper.make_graph(nodes, "one", [], [], constants)))

    before, after = graph("weight", TensorProto.FLOAT), graph("weight_quantized", TensorProto.INT8)
    told = left_in_graph(before, after, {"/head/MatMul": "head"}, {}, "no layer")
    assert told == [Leftover(layer="/embed/Add", kind="Add", share=0.5, reason="no layer")]


@pytest.mark.parametrize(
    "granularity", [{"granularity": "Unstructured", "amount": "50%"}, {"granularity": "NofM", "pattern": "2:4"}]
)
def test_zeros_reach_recurrent_layers(granularity: dict[str, str]) -> None:
    torch.manual_seed(0)
    module = Reads().eval()
    step = {"prune": {"criterion": "Magnitude", **granularity}}
    assert not any(one.kind == "LSTM" for one in left_of(module, **step).values())
    applied = TECHNIQUES["prune"](Step.model_validate(step).prune, candidate_of(module), bench_of(module))
    assert {"core.weight_ih_l0", "core.weight_hh_l0"} <= applied.candidate.sparse
    zeros = [
        float((applied.candidate.module.get_parameter(f"core.weight_{one}_l0") == 0).float().mean())
        for one in ("ih", "hh")
    ]
    assert zeros == pytest.approx([0.5, 0.5], abs=0.1)


def test_wanda_names_recurrent_layers_and_what_would_set_zeros_in_them() -> None:
    torch.manual_seed(0)
    wanda = {"granularity": "Unstructured", "criterion": "Activation", "statistic": "Wanda", "amount": "5%"}
    left = left_of(Reads().eval(), prune=wanda)
    assert "Magnitude sets zeros in it" in left["core"].reason


def test_zeros_reach_transposed_convolutions_along_what_they_read() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.ConvTranspose2d(4, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 8, 3, groups=2), nn.Flatten())
    module.input_shape = (4, 3, 3)  # type: ignore[assignment]
    step = {"prune": {"criterion": "Magnitude", "granularity": "NofM", "pattern": "2:4"}}
    applied = TECHNIQUES["prune"](Step.model_validate(step).prune, candidate_of(module), bench_of(module))
    fours = applied.candidate.module.get_parameter("0.weight").movedim(0, -1).reshape(-1, 4)
    assert ((fours != 0).sum(dim=1) == 2).all()
    assert [one.layer for one in applied.left] == ["2"]


def test_a_model_of_which_nothing_can_be_cut_is_refused_by_its_largest_layers() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.LSTM(8, 32, proj_size=16, batch_first=True), Answers(), nn.Linear(16, 3)).eval()
    module.input_shape = (6, 8)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"the largest: 0 \(LSTM, 99% of the bytes\): its channels stay: 0 projects"):
        left_of(module, prune={"criterion": "Magnitude", "amount": "5%"})


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_gets_int8_and_one_in_groups_stays_float_and_is_named(groups: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.ConvTranspose2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 4, stride=2, groups=groups), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(),
    ).eval()  # fmt: skip
    module.input_shape = (3, 4, 4)  # type: ignore[assignment]
    left = left_of(module, quantize={"scheme": "Int8Static"})
    assert list(left) == ["3"] * (groups == 2)
    assert all("no int8 transposed convolution in groups" in one.reason for one in left.values())
