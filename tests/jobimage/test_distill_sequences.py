"""Losses on hidden layers of transformers: over the width wherever it stands, of the tokens that count."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.architectures import TRANSFORMERS
from tests.jobimage.bench import bench_of
from tests.jobimage.test_prune_families import pruned
from tests.jobimage.texts import TEXT, TinyBert, sentences, tiny_bert
from torch import nn
from torchvision.models import swin_t
from torchvision.models.convnext import CNBlock

from plimsoll_api.spec import Distill, LayerPair
from plimsoll_job.errors import UserError
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import Signature, single
from plimsoll_job.techniques import distill
from plimsoll_job.techniques.distill.answers import Answers, Hidden, hidden_layer
from plimsoll_job.techniques.distill.losses import attention_distance, attention_map
from plimsoll_job.techniques.distill.pairs import Couple, Pair, pairs_of
from plimsoll_job.techniques.distill.terms import AttentionTerm
from plimsoll_job.techniques.layout import Layout, Over
from plimsoll_job.techniques.padding import Padding
from plimsoll_job.techniques.shape import Applied, Candidate

WIDE = "inner.bert.encoder.layer.0.intermediate.dense"


def padded(signature: Signature, count: int = 48) -> Samples:
    """Return texts of 4 to all tokens; what comes after them is nonsense that is masked."""
    chance = np.random.default_rng(0)
    (length,) = signature[0].shape
    mask = (np.arange(length) < chance.integers(4, length + 1, count)[:, None]).astype(np.int64)
    words = chance.integers(0, 100, (count, length))
    return Samples({"input_ids": words, "attention_mask": mask}, None, digest="sha256:" + "0" * 64)


def taught(teacher: nn.Module, student: Candidate, signature: Signature, *losses: dict[str, Any]) -> Applied:
    order = Distill.model_validate({"epochs": 6, "batchSize": 16, "learningRate": "0.003", "losses": [*losses]})
    return distill.apply(order, student, bench_of(teacher, train=padded(signature), signature=signature))


def test_the_map_of_a_sequence_has_a_number_for_each_token() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 7, 32)
    assert torch.equal(attention_map(features, -1), (features**2).sum(dim=2))
    # A wider layer that looks at the same tokens has the same map, but for its size.
    assert attention_distance(attention_map(features.repeat(1, 1, 3), -1), attention_map(features, -1)) < 1e-12


def test_tokens_that_the_mask_leaves_out_do_not_count() -> None:
    torch.manual_seed(0)
    given, wanted = torch.rand(2, 7), torch.rand(2, 7)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    noisy = given + 100 * torch.rand(2, 7) * (1 - mask)
    whole = attention_distance(given[1:, :4], wanted[1:, :4]) + attention_distance(given[:1], wanted[:1])
    assert attention_distance(given, wanted, mask).item() == pytest.approx(whole.item() / 2, rel=1e-5)
    assert torch.equal(attention_distance(noisy, wanted, mask), attention_distance(given, wanted, mask))
    assert attention_distance(noisy, wanted) > 1.5 * attention_distance(given, wanted)


def test_a_text_of_padding_alone_has_finite_gradients() -> None:
    given = torch.rand(2, 5, 8, requires_grad=True)
    pair = Pair(*(Hidden("wide", (5, 8), width_first=False),) * 2)
    answers = Answers(torch.zeros(2, 1), {"wide": given}, torch.zeros(2, 5, dtype=torch.int64))
    term = AttentionTerm([pair])
    term.padding = Padding({"wide": Layout(((Over.SAMPLES,), (Over.TOKENS,), ()))})
    loss = term(answers, (torch.rand(2, 5),), None)
    assert loss.item() == 0
    loss.backward()
    assert given.grad is not None
    assert torch.isfinite(given.grad).all()


def test_a_bert_whose_neurons_went_learns_where_its_teacher_looks() -> None:
    build, signature = TRANSFORMERS["bert"]
    torch.manual_seed(0)
    teacher = build()
    student = pruned(copy.deepcopy(teacher), signature, "Magnitude", "30%").candidate
    assert student.module.get_parameter(f"{WIDE}.weight").shape[0] < 128
    details = taught(
        teacher, student, signature, {"attention": {"layers": [{"teacher": WIDE}], "weight": "90%"}}, {"logits": {}}
    ).details
    told = details["losses"]["attention"]
    assert told["layers"] == [{"teacher": WIDE, "student": WIDE}]
    assert told["curve"][-1] < 0.5 * told["curve"][0]


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "vit", "swin"])
def test_pruned_transformers_are_taught_by_layers_that_are_found(name: str) -> None:
    build, signature = TRANSFORMERS[name]
    torch.manual_seed(0)
    teacher = build()
    student = pruned(copy.deepcopy(teacher), signature, "Magnitude").candidate
    couple = Couple(teacher, student.module, signature)
    pairs = pairs_of([], couple, "x", spatial=True)
    assert pairs
    for pair in pairs:
        owner = teacher.get_submodule(pair.teacher.name)
        width = getattr(owner, "out_features", getattr(owner, "normalized_shape", (pair.teacher.width,))[-1])
        assert pair.teacher.width == width


@pytest.mark.parametrize(
    ("module", "shape", "name", "width", "grid"),
    [
        (nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.MaxPool1d(2)), (3, 14), "1", 8, (12,)),
        (nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.MaxPool1d(2)), (3, 14), "2", 8, (6,)),
        (nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8)), (5, 6), "1", 8, (5,)),
        (nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8)), (4, 5, 6), "1", 8, (4, 5)),
        (CNBlock(8, 1e-6, 0.0), (8, 4, 5), "block.3", 32, (4, 5)),
        (CNBlock(8, 1e-6, 0.0), (8, 4, 5), "block.6", 8, (4, 5)),
        (nn.Sequential(CNBlock(8, 1e-6, 0.0)), (8, 4, 5), "0", 8, (4, 5)),
        (swin_t(), (3, 64, 64), "features.1.0.mlp.1", 384, (16, 16)),
        (swin_t(), (3, 64, 64), "features.1.0", 96, (16, 16)),
    ],
)
def test_the_width_is_found_wherever_it_stands(
    module: nn.Module, shape: tuple[int, ...], name: str, width: int, grid: tuple[int, ...]
) -> None:
    layer = hidden_layer(module.eval(), single(shape), name)
    assert layer is not None
    assert (layer.width, layer.grid) == (width, grid)


def test_sequences_of_one_length_and_another_width_are_compared() -> None:
    couple = Couple(tiny_bert(), tiny_bert(), TEXT)
    wide = LayerPair.model_validate({"teacher": "layers.0.wide", "student": "layers.1.narrow"})
    (pair,) = pairs_of([wide], couple, "x", spatial=True)
    assert (pair.teacher.width, pair.student.width, pair.teacher.grid) == (128, 64, (12,))


def test_a_layer_with_one_position_has_nowhere_to_look() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    couple = Couple(module, module, single((3, 8, 8)))
    ordered = LayerPair.model_validate({"teacher": "1"})
    message = r"x.layers\[0\].teacher: 1 answers \[4, 1, 1\] for a sample, which has no positions to attend to; name a"
    with pytest.raises(UserError, match=message):
        pairs_of([ordered], couple, "x", spatial=True)
    assert [pair.teacher.name for pair in pairs_of([], couple, "x", spatial=True)] == ["0"]


def test_what_padding_holds_does_not_change_what_is_learned() -> None:
    losses: dict[str, Any] = {"attention": {"layers": [{"teacher": "layers.0.wide"}]}}
    samples, other = sentences(), sentences()
    other.inputs["input_ids"][other.inputs["attention_mask"] == 0] = 7
    curves = []
    for some in (samples, other):
        torch.manual_seed(1)
        student = Candidate(TinyBert().eval())
        order = Distill.model_validate({"epochs": 2, "losses": [losses]})
        applied = distill.apply(order, student, bench_of(tiny_bert(), train=some, signature=TEXT))
        curves.append(applied.details["loss"])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert curves[0][0] > 0
