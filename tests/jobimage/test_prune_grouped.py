"""Groups of a convolution go as a whole, as heads of attention do."""

from __future__ import annotations

from functools import partial
from typing import Any

import onnxruntime as ort
import pytest
import torch
import torchvision
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.exported import export_bytes
from tests.jobimage.modules import Cardinal, Grouped
from tests.jobimage.planted import built, copy_channel, pruned
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, SwinTransformerBlock

from plimsoll_api.spec import Prune
from plimsoll_job.figures import count_parameters
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import prune
from plimsoll_job.techniques.prune.coupling import cut, find_groups
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Candidate, Cut


@pytest.mark.parametrize("criterion", ["Magnitude", "Activation", "Taylor", "Redundancy"])
def test_whole_paths_go_and_the_export_answers_alike(criterion: str) -> None:
    module = built(Cardinal)
    applied = pruned(module, samples_of((3, 8, 8), 64), "15%", criterion)
    left = applied.candidate.module
    paths = left.get_submodule("paths.0")
    assert isinstance(paths, nn.Conv2d)
    assert (paths.in_channels, paths.out_channels) == (6 * paths.groups,) * 2
    assert paths.groups < 4
    assert paths.weight.shape == (6 * paths.groups, 6, 3, 3)
    assert applied.details["groups"]["narrow.0"] == [4, paths.groups]
    assert "heads" not in applied.details
    replayed = replay(built(Cardinal, seed=1), single((3, 8, 8)), applied.candidate.changes)
    replayed.load_state_dict(left.state_dict(), strict=True)
    inputs = samples_of((3, 8, 8), 8, seed=1).inputs["inputs"]
    (answers,) = ort.InferenceSession(export_bytes(left, single((3, 8, 8)))).run(None, {"inputs": inputs})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(answers), replayed(torch.from_numpy(inputs)), atol=1e-4)


def test_a_path_that_nobody_reads_goes_first_and_is_not_missed() -> None:
    module = built(Cardinal)
    with torch.no_grad():
        module.get_parameter("wide.0.weight")[:, 6:12] = 0
    applied = pruned(module, samples_of((3, 8, 8), 64), "7%", "Redundancy")
    assert applied.details["gone"]["narrow.0"] == list(range(6, 12))
    inputs = torch.from_numpy(samples_of((3, 8, 8), 8, seed=1).inputs["inputs"])
    with torch.no_grad():
        assert torch.allclose(applied.candidate.module(inputs), module(inputs), atol=1e-4)


def test_a_path_that_repeats_another_is_made_good_for() -> None:
    module = built(Cardinal)
    for channel in range(6):
        copy_channel(module, ["narrow.0", "narrow.1", "paths.0", "paths.1"], source=channel, target=channel + 6)
    applied = pruned(module, samples_of((3, 8, 8), 64), "7%", "Redundancy")
    assert applied.details["gone"]["narrow.0"] in (list(range(6)), list(range(6, 12)))
    inputs = torch.from_numpy(samples_of((3, 8, 8), 8, seed=1).inputs["inputs"])
    with torch.no_grad():
        assert torch.allclose(applied.candidate.module(inputs), module(inputs), atol=1e-3)


def test_one_of_two_groups_may_go_and_then_a_plain_convolution_is_left() -> None:
    module = built(Grouped)
    first = Cut("grouped", (4, 5, 6, 7))
    once = cut(module, single((3, 8, 8)), [first])
    assert once.get_parameter("grouped.weight").shape == (4, 4, 3, 3)
    assert torch.equal(once.get_parameter("grouped.weight"), module.get_parameter("grouped.weight")[:4])
    settings = Prune.model_validate({"criterion": "Magnitude", "amount": "40%"})
    again = prune.apply(settings, Candidate(once, (first,)), bench_of(module)).candidate
    assert again.module.get_parameter("grouped.weight").shape[1] < 4
    replayed = replay(built(Grouped), single((3, 8, 8)), again.changes)
    replayed.load_state_dict(again.module.state_dict(), strict=True)


def test_groups_that_write_more_than_they_read_go_with_what_they_read() -> None:
    module = built(Cardinal)
    stem = next(group for group in find_groups(module, single((3, 8, 8))) if group.root == "stem")
    assert stem.units == (tuple(range(8)), tuple(range(8, 16)))
    less = cut(module, single((3, 8, 8)), [Cut("stem", stem.units[0])])
    spread: Any = less.get_submodule("spread")
    assert (spread.in_channels, spread.out_channels, spread.groups) == (8, 16, 1)
    assert torch.equal(less.get_parameter("head.weight"), module.get_parameter("head.weight")[:, 16:])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnext50_32x4d", "regnet_x_400mf", "regnet_y_400mf"])
def test_torchvisions_grouped_models_lose_groups(name: str) -> None:
    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(num_classes=10).eval()
    module.input_shape = (3, 64, 64)
    applied = pruned(module, samples_of((3, 64, 64), 8), "30%", "Magnitude")
    assert 1 - count_parameters(applied.candidate.module) / count_parameters(module) == pytest.approx(0.3, abs=0.0101)
    assert any(after < before for before, after in applied.details["groups"].values())
    assert not any("grouped" in note for note in applied.notes)


class OwnAttention(ShiftedWindowAttention):  # type: ignore[misc]
    """Its weights are read by a function, and its class is not one that is known."""


@pytest.mark.parametrize("criterion", ["Activation", "Taylor", "Redundancy"])
def test_heads_whose_weights_are_read_without_a_call_stay(criterion: str) -> None:
    torch.manual_seed(0)
    module = torchvision.models.SwinTransformer(
        [4, 4], 16, [1, 1], [2, 4], [4, 4], num_classes=5, block=partial(SwinTransformerBlock, attn_layer=OwnAttention),
    ).eval()  # fmt: skip
    module.input_shape = (3, 32, 32)
    applied = pruned(module, samples_of((3, 32, 32), 16), "30%", criterion)
    assert 1 - count_parameters(applied.candidate.module) / count_parameters(module) == pytest.approx(0.3, abs=0.0101)
    assert "heads" not in applied.details
