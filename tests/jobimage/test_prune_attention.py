"""Attention loses whole heads, and what the graph gets wrong is found out by the answers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.jobimage.architectures import TRANSFORMERS
from tests.jobimage.exported import export_bytes
from tests.jobimage.test_prune_families import pruned
from torch import nn
from torchvision.models.swin_transformer import (
    PatchMerging,
    PatchMergingV2,
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerBlockV2,
)

from plimsoll_job.figures import count_parameters
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques.observe import Batches
from plimsoll_job.techniques.prune.coupling import cut, find_coupling, find_groups
from plimsoll_job.techniques.prune.importance import magnitude_scores
from plimsoll_job.techniques.prune.plain import SelfAttention, put_plain_layers
from plimsoll_job.techniques.prune.redundancy import redundancy_scores
from plimsoll_job.techniques.prune.soundness import least_cut, unsound_groups
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Cut

QUERY = "inner.bert.encoder.layer.0.attention.self.query"


class Encoder(nn.Module):
    """torch's own encoder layer under a classifier."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=batch_first)
        self.head = nn.Linear(32, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layer(rows).mean(dim=1))
        return logits


class Unknown(nn.Module):
    """An attention that no name betrays; its width is written into its code."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        mixed = self.first(rows).view(len(rows), -1, 4, 8).transpose(1, 2)
        mixed = torch.softmax(mixed @ mixed.transpose(-1, -2), dim=-1) @ mixed
        hidden = self.second(mixed.transpose(1, 2).reshape(len(rows), -1, 32))
        logits: torch.Tensor = self.down(torch.relu(self.up(hidden))).mean(dim=1)
        return logits


class Shuffled(nn.Module):
    """Channels that are shuffled between two groups, as in ShuffleNet: a graph of ranges cannot follow them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.up, self.head = nn.Conv2d(8, 16, 1), nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = torch.relu(self.first(images))
        shuffled = images.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)  # type: ignore[no-untyped-call]
        images = torch.relu(self.up(torch.relu(self.second(shuffled))))
        logits: torch.Tensor = self.head(images.mean(dim=(2, 3)))
        return logits


def bert() -> nn.Module:
    torch.manual_seed(0)
    return TRANSFORMERS["bert"][0]()


def test_a_head_is_all_that_it_reads_and_writes() -> None:
    module, signature = bert(), TRANSFORMERS["bert"][1]
    less = cut(module, signature, [Cut(QUERY, tuple(range(16, 32)))])
    owner = QUERY.removesuffix(".query")
    kept = [*range(16), *range(32, 64)]
    for part in ("query", "key", "value"):
        before, after = (one.get_parameter(f"{owner}.{part}.weight") for one in (module, less))
        assert torch.equal(after, before[kept])
    written = "inner.bert.encoder.layer.0.attention.output.dense"
    assert torch.equal(less.get_parameter(f"{written}.weight"), module.get_parameter(f"{written}.weight")[:, kept])
    with torch.no_grad():
        module.get_parameter(f"{written}.weight")[:, 16:32] = 0
        assert torch.allclose(less(*example_of(signature)), module(*example_of(signature)), atol=1e-6)


def test_the_width_that_all_layers_share_stays() -> None:
    module, signature = bert(), TRANSFORMERS["bert"][1]
    groups = find_groups(module, signature)
    assert [group.root.removeprefix("inner.") for group in groups if group.unit == 1] == [
        "bert.encoder.layer.0.intermediate.dense", "bert.encoder.layer.1.intermediate.dense", "bert.pooler.dense",
    ]  # fmt: skip
    assert [group.unit for group in groups if group.root.endswith("query")] == [16, 16]
    with torch.no_grad():
        assert pruned(module, signature, "Magnitude").candidate.module.get_submodule("inner.bert")(
            *example_of(signature)
        )[0].shape == (2, 16, 64)


def test_a_head_that_repeats_another_goes_first_and_is_not_missed() -> None:
    module, signature = bert(), TRANSFORMERS["bert"][1]
    with torch.no_grad():
        for part in ("query", "key", "value"):
            layer = module.get_submodule(QUERY.replace("query", part))
            for tensor in (layer.get_parameter("weight"), layer.get_parameter("bias")):
                tensor[48:64] = tensor[16:32]
    batches = Batches(lambda: [example_of(signature, 64)])
    scores = redundancy_scores(module, find_groups(module, signature), batches)[QUERY]
    by_head = scores.reshape(4, 16)[:, 0]
    assert by_head.argmin() in (1, 3)
    assert sorted(by_head)[0] < 1e-3 * sorted(by_head)[1]


def test_a_head_of_no_weight_goes_first() -> None:
    module, signature = bert(), TRANSFORMERS["bert"][1]
    with torch.no_grad():
        module.get_parameter(f"{QUERY.replace('query', 'value')}.weight")[32:48] = 0
        module.get_parameter("inner.bert.encoder.layer.0.attention.output.dense.weight")[:, 32:48] = 0
    scores = magnitude_scores(module, find_groups(module, signature))[QUERY]
    assert scores.reshape(4, 16).mean(axis=1).argmin() == 2


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masked", ["nothing", "padding", "scores", "both", "heads"])
def test_plain_attention_answers_as_torchs_own(masked: str, batch_first: bool) -> None:
    torch.manual_seed(0)
    own = nn.MultiheadAttention(32, 4, batch_first=batch_first).eval()
    nn.init.normal_(own.in_proj_bias)
    rows = torch.randn(5, 7, 32) if batch_first else torch.randn(7, 5, 32)
    padding = torch.zeros(5, 7, dtype=torch.bool)
    padding[:, 5:] = True
    scores = torch.ones(7, 7, dtype=torch.bool).triu(1)
    masks = {
        "nothing": {}, "padding": {"key_padding_mask": padding}, "scores": {"attn_mask": scores},
        "both": {"key_padding_mask": padding, "attn_mask": scores},
        "heads": {"attn_mask": torch.randn(20, 7, 7)},
    }[masked]  # fmt: skip
    with torch.no_grad():
        expected, given = (one(rows, rows, rows, need_weights=False, **masks)[0] for one in (own, SelfAttention(own)))
    assert torch.allclose(expected, given, atol=1e-6)


def test_torchs_encoder_layer_loses_heads_too() -> None:
    torch.manual_seed(0)
    module, signature = Encoder().eval(), single((6, 32))
    plain = copy.deepcopy(module)
    put_plain_layers(plain)
    assert isinstance(module.layer.self_attn, nn.MultiheadAttention)
    with torch.no_grad():
        assert torch.allclose(plain(*example_of(signature)), module(*example_of(signature)), atol=1e-5)
    left = pruned(module, signature, "Redundancy", "50%")
    attention: Any = left.candidate.module.get_submodule("layer.self_attn")
    assert left.details["heads"] == {"layer.self_attn.q_proj": [4, attention.num_heads]}
    assert attention.num_heads < 4


def test_channels_that_are_shuffled_go_as_many_from_each_group() -> None:
    torch.manual_seed(0)
    module, signature = Shuffled().eval(), single((3, 8, 8))
    first = next(group for group in find_groups(module, signature) if group.root == "first")
    assert first.units == ((0, 4), (1, 5), (2, 6), (3, 7))
    # Its code has the sizes of the groups in it, which no attribute could change.
    with torch.no_grad():
        module.get_parameter("first.weight")[[0, 4]] = 0
        module.get_parameter("second.weight")[:, [0, 2]] = 0
    left = pruned(module, signature, "Magnitude", "40%")
    assert left.candidate.module.get_parameter("first.weight").shape[0] == 8
    assert left.candidate.module.get_parameter("up.weight").shape[0] < 16
    assert any(note.startswith("Left whole") and "first" in note for note in left.notes)


def test_an_attention_of_unknown_make_is_left_whole_and_said_so() -> None:
    torch.manual_seed(0)
    module, signature = Unknown().eval(), single((6, 32))
    coupling = find_coupling(module, signature)
    assert "first" in unsound_groups(module, signature, coupling, [least_cut(group) for group in coupling.groups])
    with torch.no_grad():
        module.get_parameter("first.weight")[:8] = 0
        module.get_parameter("second.weight")[:, :8] = 0
    applied = pruned(module, signature, "Magnitude", "30%")
    assert applied.candidate.module.get_parameter("first.weight").shape == (32, 32)
    assert any(note.startswith("Left whole") and "first" in note for note in applied.notes)


def test_channels_that_are_summed_up_beside_a_layer_go_too() -> None:
    class Added(Unknown):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            hidden = torch.relu(self.up(rows))
            logits: torch.Tensor = self.down(hidden).mean(dim=1) + hidden.sum(dim=(1, 2))[:, None]
            return logits

    torch.manual_seed(0)
    module = Added().eval()
    applied = pruned(module, single((6, 32)), "Magnitude")
    assert applied.candidate.module.get_parameter("up.weight").shape[0] < 64
    # What is summed up is so over the neurons that are left, and over no others.
    (one,) = (change for change in applied.candidate.changes if isinstance(change, Cut))
    with torch.no_grad():
        for name in ("up.weight", "up.bias"):
            module.get_parameter(name)[list(one.channels)] = 0
        rows = torch.randn(4, 6, 32)
        assert torch.allclose(applied.candidate.module(rows), module(rows), atol=1e-5)


VERSIONS = pytest.mark.parametrize("version", [1, 2])


def swin(size: tuple[int, int], depths: list[int], version: int) -> nn.Module:
    """Return a Swin of windows of 4 by 4, its biases drawn, for images whose side is a multiple of 4."""
    torch.manual_seed(0)
    block, merging = ((SwinTransformerBlock, PatchMerging), (SwinTransformerBlockV2, PatchMergingV2))[version - 1]
    heads = [2, 4][: len(depths)]
    module: nn.Module = SwinTransformer(
        [4, 4], 16, depths, heads, [4, 4], num_classes=5, block=block, downsample_layer=merging
    ).eval()
    module.input_shape = (3, *size)  # type: ignore[assignment]
    for name, parameter in module.named_parameters():
        if name.endswith(("bias", "bias_table", "logit_scale")):
            nn.init.normal_(parameter)
    return module


# Windows that fit, that must be padded, and one that is larger than the image along one side or both.
@VERSIONS
@pytest.mark.parametrize("size", [(32, 32), (36, 52), (16, 40), (16, 16), (12, 8)])
def test_plain_window_attention_answers_as_torchvisions(size: tuple[int, int], version: int) -> None:
    module = swin(size, [2], version)
    plain = copy.deepcopy(module)
    put_plain_layers(plain)
    assert {type(one) for one in plain.modules()}.isdisjoint({ShiftedWindowAttention, ShiftedWindowAttentionV2})
    assert plain.state_dict().keys() == module.state_dict().keys()
    images = torch.randn(3, 3, *size)
    with torch.no_grad():
        assert torch.allclose(plain(images), module(images), atol=1e-5)


@VERSIONS
@pytest.mark.parametrize("criterion", ["Magnitude", "Activation", "Taylor", "Redundancy"])
def test_torchvisions_swin_loses_heads_too(criterion: str, version: int) -> None:
    module, signature = swin((32, 32), [2, 2], version), single((3, 32, 32))
    # In so narrow a model the network that weighs distances, 512 numbers a head, is much: choices count without it.
    amount, close = [(0.6, 0.0101), (0.4, 0.0201)][version - 1]
    applied = pruned(module, signature, criterion, f"{amount:.0%}")
    left = applied.candidate.module
    assert 1 - count_parameters(left) / count_parameters(module) == pytest.approx(amount, abs=close)
    assert applied.details["heads"] == {
        one.root: [2 if one.root.startswith("features.1") else 4, left.get_submodule(one.root[:-4]).num_heads]
        for one in find_groups(module, signature)
        if one.of_heads
    }
    assert any(after < before for before, after in applied.details["heads"].values())
    export_bytes(left, signature)
    again = replay(module, signature, applied.candidate.changes)
    again.load_state_dict(left.state_dict())
    assert torch.equal(again(*example_of(signature)), left(*example_of(signature)))


@VERSIONS
def test_a_head_of_swin_is_all_that_it_reads_and_writes(version: int) -> None:
    module, signature = swin((32, 32), [2, 2], version), single((3, 32, 32))
    name = "features.3.1.attn"
    less = cut(module, signature, [Cut(f"{name}.qkv", tuple(range(8, 16)))])
    of_heads = ["relative_position_bias_table"] if version == 1 else ["logit_scale", "cpb_mlp.2.weight"]
    for own in of_heads:
        axis = 1 if version == 1 else 0
        kept = module.get_parameter(f"{name}.{own}").index_select(axis, torch.tensor([0, 2, 3]))
        assert torch.equal(less.get_parameter(f"{name}.{own}"), kept)
    with torch.no_grad():
        module.get_parameter(f"{name}.proj.weight")[:, 8:16] = 0
        assert torch.allclose(less(*example_of(signature)), module(*example_of(signature)), atol=1e-5)
