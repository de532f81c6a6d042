"""What a training is set to where the step leaves it open: by what the model computes, and told in the record."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.huggingface import IMAGE, SIZES, TEXT, VISION, made
from tests.jobimage.modules import Flattened, plain_mlp
from tests.jobimage.padded import Encoder, Reader, Wrapped
from tests.jobimage.texts import TEXT as WORDS
from tests.jobimage.texts import sentences, tiny_bert
from torch import nn

from plimsoll_api.spec import Distill
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import distill
from plimsoll_job.techniques.distill.recipe import RECIPES, Family, Recipe, family_of, grouped, recipe_of
from plimsoll_job.techniques.shape import Candidate


class Squeezed(nn.Module):
    """A convolution whose channels a softmax weighs, as squeeze-and-excitation does: no attention between places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images).mean(dim=(2, 3))
        answers: torch.Tensor = self.head(features * self.gate(features).softmax(dim=1)).softmax(dim=1)
        return answers


class Attended(nn.Module):
    """Convolutions, or a recurrent layer, to whose places torch's attention is added once."""

    def __init__(self, *, recurrent: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1))
        self.steps = nn.LSTM(8, 32, batch_first=True) if recurrent else None
        self.attention, self.head = nn.MultiheadAttention(32, 2, batch_first=True), nn.Linear(32, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = self.conv(images).flatten(2).transpose(1, 2) if self.steps is None else self.steps(images[:, 0])[0]
        answers: torch.Tensor = self.head((rows + self.attention(rows, rows, rows)[0]).mean(1))
        return answers


@pytest.mark.parametrize(
    ("build", "signature", "family"),
    [
        (lambda: Wrapped(made("Bert", "ForSequenceClassification", **SIZES)), TEXT, Family.ATTENTION),
        (tiny_bert, WORDS, Family.ATTENTION),
        (Encoder, TEXT, Family.ATTENTION),
        (lambda: _First(made("ViT", "ForImageClassification", **VISION)), IMAGE, Family.ATTENTION),
        (lambda: Reader(packed=False), TEXT, Family.RECURRENT),
        (Flattened, single((1, 4, 4)), Family.CONVOLUTIONAL),
        (Attended, single((1, 8, 8)), Family.CONVOLUTIONAL),
        (lambda: Attended(recurrent=True), single((1, 8, 8)), Family.RECURRENT),
        (Squeezed, single((1, 8, 8)), Family.CONVOLUTIONAL),
        (plain_mlp, single((13,)), Family.DENSE),
    ],
)
def test_a_family_is_told_by_what_the_model_computes(build: Any, signature: Any, family: Family) -> None:
    assert family_of(build().eval(), signature) is family


class _First(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> Any:
        return self.inner(images)[0]


def test_what_the_step_says_goes_before_the_family() -> None:
    silent = Distill.model_validate({"epochs": 1})
    assert recipe_of(silent, Family.ATTENTION) == RECIPES[Family.ATTENTION] == Recipe(1e-4, 0.1, 1.0, 0.01)
    assert recipe_of(silent, Family.ATTENTION, fresh=True).learning_rate == 5e-4
    order = {"learningRate": "0.02", "warmupRatio": 0, "maxGradNorm": "0.5", "weightDecay": "0.1"}
    said = Distill.model_validate({"epochs": 1, **order})
    assert all(recipe_of(said, family, fresh=True) == Recipe(0.02, 0.0, 0.5, 0.1) for family in Family)


def test_the_learning_rate_grows_to_its_peak_and_decays_to_nothing() -> None:
    rates = [Recipe(1.0, warmup_ratio=0.2).rate(step, 10) for step in range(11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert all(after < before for before, after in pairwise(rates[2:]))
    assert rates[-1] == pytest.approx(0)
    assert Recipe(1.0).rate(0, 10) == 1.0


def test_norms_biases_and_embeddings_do_not_decay() -> None:
    module = Wrapped(made("Bert", "ForSequenceClassification", **SIZES))
    decaying, others = grouped(module, 0.1)
    names = {id(one): name for name, one in module.named_parameters()}
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all("embeddings" not in names[id(one)] and "bias" not in names[id(one)] for one in decaying["params"])
    assert {id(one) for one in (*decaying["params"], *others["params"])} == set(names)
    kept = {names[id(one)] for one in others["params"]}
    assert "inner.bert.embeddings.word_embeddings.weight" in kept
    assert "inner.bert.encoder.layer.0.output.LayerNorm.weight" in kept


class Positioned(nn.Module):
    """Holds embeddings of places, a scale of channels and a table of distances itself, as ViT, ConvNeXt and Swin do."""

    def __init__(self) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos_embedding = nn.Parameter(torch.zeros(1, 5, 8))
        self.layer_scale = nn.Parameter(torch.ones(8, 1, 1))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.norm, self.head = nn.LayerNorm([5, 8]), nn.Linear(8, 1)
        self.mixing = nn.Parameter(torch.zeros(8, 8))


def test_what_a_model_holds_itself_decays_only_where_it_is_a_weight() -> None:
    """By their axes alone, embeddings of positions, scales of channels and norms of several axes decayed."""
    module = Positioned()
    names = {id(one): name for name, one in module.named_parameters()}
    decaying, _ = grouped(module, 0.1)
    assert {names[id(one)] for one in decaying["params"]} == {"head.weight", "mixing"}


def test_the_record_tells_what_was_chosen_and_by_what(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    clip = nn.utils.clip_grad_norm_

    def noted(these: Any, most: float) -> Any:
        norms.append(most)
        return clip(these, most)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", noted)
    module = tiny_bert()
    bench = bench_of(module, train=sentences(), signature=WORDS)
    order = Distill.model_validate({"epochs": 1, "weightDecay": "0.1"})
    optimizer = distill.apply(order, Candidate(tiny_bert()), bench).details["optimizer"]
    assert optimizer == {
        "name": "AdamW", "learningRate": 0.0001, "warmupRatio": 0.1, "maxGradNorm": 1, "weightDecay": 0.1,
        "noDecay": ["norms", "biases", "embeddings"], "family": "Attention",
        "byFamily": ["learningRate", "warmupRatio", "maxGradNorm"],
    }  # fmt: skip
    assert norms == [1.0]
    bench = bench_of(Flattened().eval(), train=samples_of((1, 4, 4)))
    told = distill.apply(Distill.model_validate({"epochs": 1}), Candidate(Flattened().eval()), bench).details
    assert (told["optimizer"]["family"], told["optimizer"]["learningRate"]) == ("Convolutional", 0.001)
    assert norms == [1.0]
