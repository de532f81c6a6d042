"""Zeros in weights that no linear layer holds: GPT-2's, which are transposed, and those of torch's attention."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.jobimage.architectures import TRANSFORMERS
from tests.jobimage.bench import bench_of
from tests.jobimage.test_prune_attention import Encoder
from torch import nn

from plimsoll_api.spec import Distill, Prune
from plimsoll_job.figures import count_parameters, is_transposed
from plimsoll_job.load.data import Samples
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature, single
from plimsoll_job.load.model import SourceModel
from plimsoll_job.techniques import distill, prune
from plimsoll_job.techniques.observe import watching
from plimsoll_job.techniques.prune.weights import weights_of
from plimsoll_job.techniques.shape import Applied, Bench, Candidate
from plimsoll_job.work import Work

WANDA = {"criterion": "Activation", "statistic": "Wanda"}
MAGNITUDE = {"criterion": "Magnitude"}
PATTERN = {"granularity": "NofM", "pattern": "2:4"}
HALF = {"granularity": "Unstructured", "amount": "50%"}
ROWS = single((6, 32))
IN_PROJ, OUT_PROJ = "layer.self_attn.in_proj_weight", "layer.self_attn.out_proj"


class Crossed(nn.Module):
    """Attention whose keys are as wide as asked, and half silent, while its queries are not."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.attention = nn.MultiheadAttention(32, 4, kdim=width, vdim=width, batch_first=True)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        memory = rows[..., : self.width] * (torch.arange(self.width) % 2)
        logits: torch.Tensor = self.attention(rows, value=memory, key=memory, need_weights=True)[0].mean(dim=1)
        return logits


class Padded(nn.Module):
    """torch's encoder of several layers, told where there is no text."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.encoder(rows, src_key_padding_mask=torch.zeros(rows.shape[:2]).bool())[:, 0, :3]
        return logits


def built(name: str) -> tuple[nn.Module, Signature]:
    torch.manual_seed(0)
    return (Encoder().eval(), ROWS) if name == "encoder" else (TRANSFORMERS[name][0](), TRANSFORMERS[name][1])


def bench(module: nn.Module, signature: Signature) -> Bench:
    inputs = example_of(signature, 16)
    samples = Samples({one.name: array.numpy() for one, array in zip(signature, inputs, strict=True)}, None, "")
    return bench_of(module, train=samples, calibration=samples, signature=signature)


def pruned(module: nn.Module, signature: Signature, **settings: Any) -> Applied:
    candidate = Candidate(copy.deepcopy(module))
    return prune.apply(Prune.model_validate(settings), candidate, bench(module, signature))


def along_inputs(module: nn.Module, name: str) -> torch.Tensor:
    """Return a weight as [outputs, inputs], by the mathematics of the layer and not by the code that is tested."""
    values = module.get_parameter(name)
    return values.T if is_transposed(module.get_submodule(name.rpartition(".")[0])) else values


@pytest.mark.parametrize("criterion", [MAGNITUDE, WANDA], ids=["Magnitude", "Wanda"])
@pytest.mark.parametrize("name", ["gpt2", "encoder"])
def test_a_pattern_holds_along_the_inputs_of_every_projection(name: str, criterion: dict[str, str]) -> None:
    module, signature = built(name)
    done = pruned(module, signature, **criterion, **PATTERN)
    left = done.candidate.module
    expected = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    expected |= {f"{name}.weight" for name, layer in module.named_modules() if is_transposed(layer)}
    if name == "encoder":
        expected.add(IN_PROJ)
        if criterion is WANDA:
            expected.remove(f"{OUT_PROJ}.weight")
            assert any("without calling it" in one.reason for one in done.left if one.layer == OUT_PROJ)
    assert done.candidate.sparse == expected
    assert len(expected) == (9 if name == "gpt2" else 5 - (criterion is WANDA))
    for one in expected:
        fours = along_inputs(left, one).reshape(-1, 4)
        assert ((fours != 0).sum(dim=1) == 2).all()
    zeros = sum(int((left.get_parameter(one) == 0).sum()) for one in expected)
    assert done.details["share"] == pytest.approx(zeros / count_parameters(module), abs=1e-6)
    assert done.details["share"] > 0.4
    with torch.no_grad():
        assert torch.isfinite(left(*example_of(signature))).all()


@pytest.mark.parametrize("scope", ["Global", "Layer", "Output"])
@pytest.mark.parametrize("name", ["gpt2", "encoder"])
def test_an_amount_is_met_in_each_scope(name: str, scope: str) -> None:
    module, signature = built(name)
    done = pruned(module, signature, **MAGNITUDE, **HALF, scope=scope)
    assert done.details["share"] == pytest.approx(0.5, abs=1e-3)
    if scope == "Output":
        for one in done.candidate.sparse:
            of_output = (along_inputs(done.candidate.module, one) == 0).sum(dim=1)
            assert int(of_output.max() - of_output.min()) <= 1


def test_a_scan_leaves_what_it_silenced_as_it_was() -> None:
    module, signature = built("gpt2")
    done = pruned(module, signature, **MAGNITUDE, **HALF, allocation="Sensitivity")
    assert done.details["share"] == pytest.approx(0.5, abs=1e-3)
    for name, before in module.named_parameters():
        after = done.candidate.module.get_parameter(name)
        assert torch.equal(after[after != 0], before[after != 0])


def test_what_is_neither_layer_nor_attention_is_named() -> None:
    module, signature = built("gpt2")
    left = pruned(module, signature, **MAGNITUDE, **PATTERN).left
    assert [one.layer for one in left] == ["inner.transformer.wte", "inner.transformer.wpe"]
    assert {one.kind for one in left} == {"Embedding"}


@pytest.mark.parametrize("width", [32, 16])
def test_each_projection_weighs_by_what_it_reads(width: int) -> None:
    torch.manual_seed(0)
    module = Crossed(width).eval()
    left = pruned(module, ROWS, **WANDA, **PATTERN).candidate.module
    queries, keys, values = (
        left.get_parameter("attention.in_proj_weight").chunk(3)
        if width == 32
        else (left.get_parameter(f"attention.{one}_proj_weight") for one in "qkv")
    )
    for one in (keys, values):
        assert (one[:, ::2] == 0).all()
        assert (one[:, 1::2] != 0).all()
    assert (queries[:, ::2] != 0).any()


def test_the_layers_of_a_padded_encoder_are_seen() -> None:
    torch.manual_seed(0)
    module = Padded().eval()
    done = pruned(module, ROWS, **WANDA, **PATTERN)
    assert len(done.candidate.sparse) == 6
    assert torch.backends.mha.get_fastpath_enabled()


def test_what_attention_reads_is_told_by_name() -> None:
    module, seen = Crossed(16).eval(), list[tuple[str, int]]()
    names = ["attention.query", "attention.key"]
    with watching(module, names, lambda name, one: seen.append((name, one.shape[-1]))):
        module(torch.randn(2, 6, 32))
    assert seen == [("attention.query", 32), ("attention.key", 16)]


@pytest.mark.parametrize("settings", [{**MAGNITUDE, **PATTERN}, {**WANDA, **HALF, "amount": "30%"}], ids=["2:4", "30%"])
@pytest.mark.parametrize("name", ["gpt2", "encoder"])
def test_zeros_stay_through_a_training_and_come_back(name: str, settings: dict[str, str], tmp_path: Path) -> None:
    module, signature = built(name)
    candidate = pruned(module, signature, **settings).candidate
    zeros = {one: candidate.module.get_parameter(one) == 0 for one in candidate.sparse}
    work, source = Work(tmp_path, signature), SourceModel(partial(copy.deepcopy, module), "tests", "sha256:" + "0" * 64)
    work.save(0, candidate, [])
    finished, again, _ = work.resume(1, source)
    assert (finished, again.sparse, again.fingerprint()) == (1, candidate.sparse, candidate.fingerprint())
    settings_of_training = Distill.model_validate({"epochs": 2, "learningRate": "0.01"})
    trained = [
        distill.apply(settings_of_training, one, bench(module, signature)).candidate for one in (candidate, again)
    ]
    assert trained[0].fingerprint() == trained[1].fingerprint()
    for one, zero in zeros.items():
        after = trained[0].module.get_parameter(one)
        assert (after[zero] == 0).all()
        assert not (after[~zero] == 0).all()


def test_zeros_stay_where_attention_gets_plain_layers_after(tmp_path: Path) -> None:
    module, signature = built("encoder")
    sparse = pruned(module, signature, **MAGNITUDE, **HALF, scope="Layer").candidate
    cut = prune.apply(Prune.model_validate({**MAGNITUDE, "amount": "30%"}), sparse, bench(module, signature)).candidate
    plain = {f"layer.self_attn.{one}_proj.weight" for one in "qkv"}
    assert plain < cut.sparse
    assert IN_PROJ not in cut.sparse
    zeros = {one: cut.module.get_parameter(one) == 0 for one in cut.sparse}
    assert all(float(zeros[one].float().mean()) > 0.3 for one in plain)
    Work(tmp_path, signature).save(0, cut, [])
    source = SourceModel(partial(copy.deepcopy, module), "tests", "sha256:" + "0" * 64)
    again = Work(tmp_path, signature).resume(1, source)[1]
    assert again.sparse == cut.sparse
    trained = distill.apply(Distill(epochs=1), again, bench(module, signature)).candidate.module
    assert all(bool((trained.get_parameter(one)[zero] == 0).all()) for one, zero in zeros.items())


def test_a_weight_that_two_layers_share_is_one() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    assert weights_of(module).keys() == {"0"}
