"""What reads the channels that are left makes good for those that are gone."""

from __future__ import annotations

import onnxruntime as ort
import pytest
import torch
from tests.jobimage.bench import batches_of, samples_of
from tests.jobimage.exported import export_bytes
from tests.jobimage.modules import MixedMLP, Residual
from tests.jobimage.planted import ARCHITECTURES, built, copy_channel, pruned
from torch import nn

from plimsoll_job.figures import count_parameters
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques.moments import Moments
from plimsoll_job.techniques.prune.compensation import compensate
from plimsoll_job.techniques.prune.coupling import cut, find_groups
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Cut


def test_channels_of_a_residual_sum_go_together_and_every_reader_is_refitted() -> None:
    module = built(Residual)
    copy_channel(module, ["stem.0", "stem.1"], source=1, target=4)
    copy_channel(module, ["outer.0", "outer.1"], source=1, target=4)
    samples = samples_of((3, 8, 8), 64)
    inputs = torch.from_numpy(samples.inputs["inputs"])
    groups = find_groups(module, single((3, 8, 8)))
    (added,) = (group for group in groups if len(group.producers) == 2)
    less = cut(module, single((3, 8, 8)), [Cut(added.root, (4,))])
    done = compensate(module, less, groups, [Cut(added.root, (4,))], batches_of(inputs))
    assert [(one.layer, one.channels_before, one.channels_after) for one in done] == [
        ("inner.0", 32, 31),
        ("head", 32, 31),
    ]
    assert all(one.error < 1e-6 < one.error_of_cut for one in done)
    assert torch.allclose(less(inputs), module(inputs), atol=1e-4)


def test_moments_are_those_of_all_rows() -> None:
    rows = torch.randn(1000, 5) + 3
    moments = Moments(5)
    for part in rows.split(33):  # type: ignore[no-untyped-call]
        moments.add(part)
    assert moments.row_count == 1000
    assert torch.allclose(moments.mean, rows.double().mean(dim=0))
    assert torch.allclose(moments.second(centred=True), torch.cov(rows.double().T, correction=0))
    assert torch.allclose(moments.second(centred=False), rows.double().T @ rows.double() / 1000)


@pytest.mark.parametrize("amount", ["50%", "80%"])
@pytest.mark.parametrize("build", ARCHITECTURES)
def test_what_is_left_answers_better_than_what_was_merely_cut(build: type[nn.Module], amount: str) -> None:
    module = built(build)
    shape: tuple[int, ...] = module.input_shape  # type: ignore[assignment]
    samples = samples_of(shape, 256)
    applied = pruned(module, samples, amount)
    share = 1 - count_parameters(applied.candidate.module) / count_parameters(module)
    assert share == pytest.approx(float(amount.rstrip("%")) / 100, abs=0.04)
    inputs = torch.from_numpy(samples_of(shape, 64, seed=1).inputs["inputs"])
    with torch.no_grad():
        wanted, given = module(inputs), applied.candidate.module(inputs)
        plain = replay(module, single(shape), applied.candidate.changes)(inputs)
    assert given.shape == wanted.shape
    assert (given - wanted).square().mean() < 0.9 * (plain - wanted).square().mean()
    for layer in applied.details["refitted"].values():
        assert layer["error"] <= layer["errorOfCut"]
        assert layer["channels"][1] < layer["channels"][0]


@pytest.mark.parametrize("build", ARCHITECTURES)
def test_the_exported_artifact_answers_as_the_module(build: type[nn.Module]) -> None:
    module = built(build)
    shape: tuple[int, ...] = module.input_shape  # type: ignore[assignment]
    left = pruned(module, samples_of(shape, 64), "50%").candidate.module
    inputs = samples_of(shape, 16, seed=1).inputs["inputs"]
    (answers,) = ort.InferenceSession(export_bytes(left, single(shape))).run(None, {"inputs": inputs})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(answers), left(torch.from_numpy(inputs)), atol=1e-4)


def test_too_few_samples_are_said() -> None:
    applied = pruned(built(MixedMLP), samples_of((6,), 4), "30%")
    assert any("4 rows of calibration data cannot tell 24 channels apart" in note for note in applied.notes)
