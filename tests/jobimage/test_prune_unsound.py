"""What can go of modules whose code or arithmetic is in the way: that stays and is named, and the step goes on."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.test_prune_families import pruned
from torch import nn

from plimsoll_job.load.inputs import Input, Signature, single
from plimsoll_job.techniques.prune import soundness
from plimsoll_job.techniques.prune.coupling import find_coupling
from plimsoll_job.techniques.prune.groups import Coupling
from plimsoll_job.techniques.prune.soundness import Checks, cut_soundly, least_cut, unsound_groups
from plimsoll_job.techniques.shape import Cut

IMAGES = single((3, 8, 8))


class Cascade(nn.Module):
    """Two heads, each of which reads its half of the features, to which the one before has added its answers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 5)
        self.heads = nn.ModuleList(nn.Conv2d(8, 16, 1) for _ in range(2))
        self.proj = nn.Conv2d(16, 16, 1)
        self.up, self.down = nn.Conv2d(16, 64, 1), nn.Conv2d(64, 16, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        before, answers = 0, []
        for head, part in zip(self.heads, features.chunk(2, dim=1), strict=True):
            queries, keys, values = head(part + before).flatten(2).split([4, 4, 8], dim=1)
            weights = (queries.transpose(1, 2) @ keys).softmax(dim=-1)
            before = (values @ weights.transpose(1, 2)).view_as(part)
            answers.append(before)
        features = features + self.proj(torch.cat(answers, dim=1))
        features = features + self.down(self.up(features).relu())
        answered: torch.Tensor = self.head(features.mean((2, 3)))
        return answered


class Beside(nn.Module):
    """Attention over places whose heads lie in the axis of the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.width = 4, 8
        self.stem, self.qkv = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 96, 1)
        self.proj = nn.Linear(32, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = self.qkv(self.stem(images)).reshape(len(images) * self.num_heads, 3, self.width, -1)
        queries, keys, values = rows.transpose(2, 3).unbind(1)
        attended = (queries @ keys.transpose(1, 2)).softmax(dim=-1) @ values
        answered: torch.Tensor = self.proj(attended.mean(1).reshape(len(images), self.num_heads * self.width))
        return answered


class NotBoth(nn.Module):
    """Of either of two layers some channels may go, but not of both: its code looks at the widths together."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.third = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(6, 16)
        self.read, self.also, self.too = nn.Linear(16, 5), nn.Linear(16, 5), nn.Linear(16, 5)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        one, other = self.one(rows).relu(), self.other(rows).relu()
        factor = 2.0 if one.shape[1] < 16 and other.shape[1] < 16 else 1.0
        answered: torch.Tensor = self.read(one) + self.also(other) * factor + self.too(self.third(rows).relu())
        return answered


class Cancelling(nn.Module):
    """Its answers are what is left of sums a million times as large: single precision loses all but a digit."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 64), nn.Linear(64, 8)
        with torch.no_grad():
            self.first.bias.fill_(3e5)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = self.first(rows)
        answered: torch.Tensor = self.second(hidden) - self.second(hidden - rows.mean(1, keepdim=True))
        return answered


class Dead(nn.Module):
    """It divides by how many channels there are, and no sample near the example's shows it: all answers are zero."""

    def __init__(self, bias: float, *, below: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 5)
        self.below = below
        with torch.no_grad():
            self.second.bias.fill_(bias)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = self.first(rows).relu()
        if self.below:
            # After all that reads the channels.
            less: torch.Tensor = self.second(hidden) / hidden.shape[1] - self.below
            return less.relu()
        answered: torch.Tensor = self.second(hidden / hidden.shape[1])
        return answered.relu()


class Seldom(nn.Module):
    """It divides by how many channels there are where the first number of a sample is large."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 5)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answered = self.second(self.first(rows).relu())
        width = len(self.first.weight)
        return torch.where(rows[:, :1] > 2, answered / width, answered)


def with_one_large(at: int) -> Signature:
    rows = np.random.default_rng(0).uniform(-1, 1, (8, 6)).astype(np.float32)
    rows[at, 0] = 3
    return (Input("inputs", (6,), samples=rows),)


@pytest.mark.parametrize(
    ("build", "signature"),
    [
        (lambda: Dead(-9.0), single((6,))),
        (lambda: Dead(0.0, below=0.1), single((6,))),
        (Seldom, with_one_large(5)),
    ],
)
def test_answers_that_tell_nothing_clear_no_channels(build: Any, signature: Signature) -> None:
    """Two samples were compared by their answers alone: where these were zeros, or took another way, all went."""
    torch.manual_seed(0)
    module = build().eval()
    coupling = find_coupling(module, signature)
    assert cut_soundly(module, signature, coupling, [Cut("first", (0, 1, 2, 3))]).module is None


def test_dead_answers_keep_no_channels_that_can_go() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5), nn.ReLU()).eval()
    with torch.no_grad():
        module.get_parameter("2.bias").fill_(-1e4)
    coupling = find_coupling(module, single((6,)))
    assert cut_soundly(module, single((6,)), coupling, [Cut("0", (0, 1, 2, 3))]).module is not None


def test_neurons_go_where_attention_adds_to_the_width_that_it_reads() -> None:
    torch.manual_seed(0)
    coupling = find_coupling(Cascade().eval(), IMAGES)
    assert "up" in {group.root for group in coupling.groups}
    assert "attention reads or writes them" in coupling.reasons["stem"]
    left = pruned(Cascade().eval(), IMAGES, "Magnitude").candidate.module
    assert left.get_parameter("up.weight").shape[0] < 64
    assert left.get_parameter("stem.weight").shape[0] == 16


def test_heads_beside_each_other_among_the_samples_go() -> None:
    torch.manual_seed(0)
    left: Any = pruned(Beside().eval(), IMAGES, "Magnitude", "50%").candidate.module
    assert left.num_heads == 2
    assert left.qkv.weight.shape[0] == 48


def test_of_two_layers_that_cannot_both_lose_channels_one_does_and_the_other_is_named() -> None:
    torch.manual_seed(0)
    module, signature = NotBoth().eval(), single((6,))
    with torch.no_grad():
        for name in ("one", "other"):
            module.get_submodule(name).get_parameter("weight")[:8] *= 0.01
    applied = pruned(module, signature, "Magnitude", "20%")
    left = applied.candidate.module
    widths = {name: len(left.get_parameter(f"{name}.weight")) for name in ("one", "other")}
    assert sorted(widths.values())[1] == 16
    assert min(widths.values()) < 16
    (whole,) = (name for name, width in widths.items() if width == 16)
    assert any(note.startswith("Left whole") and whole in note for note in applied.notes)


def test_what_single_precision_rounds_is_not_held_against_a_cut() -> None:
    torch.manual_seed(0)
    module, signature = Cancelling().eval(), single((6,))
    coupling = find_coupling(module, signature)
    assert cut_soundly(module, signature, coupling, [Cut("first", tuple(range(21)))]).module is not None


def test_a_search_ends_after_so_many_checks_and_what_is_not_cleared_stays() -> None:
    torch.manual_seed(0)
    module, signature = NotBoth().eval(), single((6,))
    coupling: Coupling = find_coupling(module, signature)
    least, checks = [least_cut(group) for group in coupling.groups], Checks(most=0)
    found = unsound_groups(module, signature, coupling, least, checks=checks)
    assert set(found) == {"one", "other", "third"}
    assert checks.made == 0


def test_what_is_cleared_does_not_hang_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """After ten minutes groups stayed whole that would else have gone: other artifacts of the same plan."""
    torch.manual_seed(0)
    hours = itertools.count(step=3600)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(hours)))
    module, signature = NotBoth().eval(), single((6,))
    coupling = find_coupling(module, signature)
    found = unsound_groups(module, signature, coupling, [least_cut(group) for group in coupling.groups])
    assert set(found) == {"other"}


def test_a_large_model_gets_fewer_checks_by_what_a_run_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    coupling = find_coupling(NotBoth().eval(), single((6,)))
    assert Checks.of(coupling) == Checks(most=160)
    monkeypatch.setattr(soundness, "MOST_NUMBERS", 50 * 2 * 16)
    assert Checks.of(coupling).most == 24
