"""What goes behind every kind of layer, and that what is left is a model of its kind, which answers as it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.bench import samples_of
from tests.jobimage.planted import pruned
from tests.jobimage.stacked import IMAGES, Between, first_of, net
from torch import nn
from torch.nn import functional

from plimsoll_job.techniques.prune.coupling import cut
from plimsoll_job.techniques.shape import Cut


class ByHand(nn.Module):
    """Groups of channels that are normalised by code."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        parts = images.view(len(images), self.groups, -1, *images.shape[2:])
        mean, spread = parts.mean((2, 3, 4), keepdim=True), parts.var((2, 3, 4), keepdim=True)
        return ((parts - mean) / (spread + 1e-5).sqrt()).view(images.shape)


class MeanSquare(nn.Module):
    """RMSNorm over channels, as many write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * images.square().mean(1, keepdim=True).add(1e-6).rsqrt() * self.scale[:, None, None]


class ChannelsLast(nn.LayerNorm):
    """LayerNorm over the channels of images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Frozen(nn.Module):
    """Batch norm whose four numbers a channel are buffers."""

    gain: torch.Tensor
    shift: torch.Tensor
    mean: torch.Tensor
    var: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("gain", "shift", "mean", "var"):
            self.register_buffer(name, torch.rand(width) + 0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scale = self.gain * (self.var + 1e-5).rsqrt()
        return images * scale[:, None, None] + (self.shift - self.mean * scale)[:, None, None]


class Gated(nn.Module):
    """Half of the channels gate the other half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values, gates = images.chunk(2, dim=1)
        return values * gates.sigmoid()


class Squeezed(nn.Module):
    """Channels weighed by what is in all of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 6, 1), nn.Conv2d(6, width, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.up(self.down(images.mean((2, 3), keepdim=True)).relu())
        return images * weights.sigmoid()


class Standardised(nn.Conv2d):
    """A convolution whose weights are standardised at each call."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = functional.batch_norm(rows, None, None, training=True, eps=1e-6).reshape_as(self.weight)
        return functional.conv2d(images, weight, self.bias)


#: What stands between two convolutions of 16 channels, how many of them a unit has, and what the second one reads.
KINDS: dict[str, tuple[Between, int, Callable[[int], int]]] = {
    "batch norm": (lambda width: [nn.BatchNorm2d(width)], 1, lambda width: width),
    "layer norm": (lambda width: [ChannelsLast(width)], 1, lambda width: width),
    "RMS norm": (lambda width: [MeanSquare(width)], 1, lambda width: width),
    "instance norm": (lambda width: [nn.InstanceNorm2d(width)], 1, lambda width: width),
    "instance norm with weights": (lambda width: [nn.InstanceNorm2d(width, affine=True)], 1, lambda width: width),
    "one group": (lambda width: [nn.GroupNorm(1, width)], 1, lambda width: width),
    "groups of two": (lambda width: [nn.GroupNorm(width // 2, width)], 2, lambda width: width),
    "groups of one": (lambda width: [nn.GroupNorm(width, width)], 1, lambda width: width),
    "groups by hand": (lambda width: [ByHand(4)], 4, lambda width: width),
    "buffers": (lambda width: [Frozen(width)], 1, lambda width: width),
    "slopes": (lambda width: [nn.PReLU(width)], 1, lambda width: width),
    "a gated linear unit": (lambda width: [nn.GLU(dim=1)], 2, lambda width: width // 2),
    "gates": (lambda width: [Gated()], 2, lambda width: width // 2),
    "squeeze and excite": (lambda width: [Squeezed(width)], 1, lambda width: width),
    "pixel shuffle": (lambda width: [nn.PixelShuffle(2)], 4, lambda width: width // 4),
    "pixel unshuffle": (lambda width: [nn.PixelUnshuffle(2)], 1, lambda width: width * 4),
    "channel shuffle": (lambda width: [nn.ChannelShuffle(4)], 4, lambda width: width),
    "transposed": (lambda width: [nn.ConvTranspose2d(width, 10, 2, 2)], 1, lambda width: 10),
    "transposed by channel": (lambda width: [nn.ConvTranspose2d(width, width, 2, 2, groups=width)], 1, lambda w: w),
    "transposed in groups": (
        lambda width: [nn.ConvTranspose2d(width, width * 2, 2, 2, groups=width // 4)], 4, lambda width: width * 2
    ),
    "groups that spread": (lambda width: [nn.Conv2d(width, width * 2, 1, groups=width // 4)], 4, lambda w: w * 2),
    "standardised": (lambda width: [Standardised(width, 10, 3)], 1, lambda width: 10),
    "softmax": (lambda width: [nn.Softmax2d()], 1, lambda width: width),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_is_a_smaller_model_of_its_kind(kind: str) -> None:
    between, unit, read = KINDS[kind]
    module = net(between, 16, read)
    group = first_of(module)
    assert (group.unit, len(group.units)) == (unit, 16 // unit)
    gone = tuple(channel for one in group.units[1:2] for channel in one) if unit > 1 else (3, 4, 7, 15)
    less = cut(module, IMAGES, [Cut("0", gone)])
    smaller = net(between, 16 - len(gone), read)
    if kind == "groups by hand":
        smaller.get_submodule("1").groups = 3  # type: ignore[assignment]
    smaller.load_state_dict(less.state_dict())
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(less(images), smaller(images))


@pytest.mark.parametrize(
    "kind", sorted(set(KINDS) - {"layer norm", "RMS norm", "one group", "standardised", "softmax"})
)
def test_channels_that_nobody_reads_are_not_missed(kind: str) -> None:
    between, unit, read = KINDS[kind]
    module = net(between, 16, read)
    group = first_of(module)
    gone = group.units[1] if unit > 1 else (3,)
    with torch.no_grad():
        for reader in group.consumers:
            places = [at for at, one in zip(reader.positions, reader.channels, strict=True) if one in gone]
            module.get_submodule(reader.name).get_parameter(reader.tensor).movedim(reader.axis, 0)[places] = 0
        images = torch.randn(3, 3, 8, 8)
        torch.testing.assert_close(cut(module, IMAGES, [Cut("0", gone)])(images), module(images))


#: Those that mix channels by their nature are among the kinds above.
ACTIVATIONS = sorted(set(nn.modules.activation.__all__) - {"MultiheadAttention", "GLU"})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_channels_pass_every_activation_of_torch(name: str) -> None:
    given = {"Threshold": (0.1, 0.0), "Softmax": (1,), "Softmin": (1,), "LogSoftmax": (1,)}.get(name, ())
    module = net(lambda _: [getattr(nn, name)(*given)], 16)
    assert len(first_of(module).units) == 16
    assert cut(module, IMAGES, [Cut("0", (3, 4))])(torch.randn(3, 3, 8, 8)).shape == (3, 5)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("groups", "width"), [(4, 32), (8, 32), (2, 24)])
def test_channels_stay_in_their_groups(groups: int, width: int, affine: bool) -> None:
    """As many go from each group, or whole ones: what is left is normalised with those that it was with."""
    module = net(lambda width: [nn.GroupNorm(groups, width, affine=affine)], width)
    applied = pruned(module, samples_of((3, 8, 8), 16), "20%", "Magnitude")
    (of_first,) = (one for one in applied.candidate.changes if isinstance(one, Cut) and one.layer == "0")
    kept = np.delete(np.arange(width), of_first.channels)
    left = np.bincount(kept // (width // groups), minlength=groups)
    assert set(left.tolist()) <= {0, int(left.max())}
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        written = module[0](images)[:, kept]  # type: ignore[index]
        norm, given = module.get_submodule("1"), applied.candidate.module
        parts = written.unflatten(1, (int((left > 0).sum()), -1)).flatten(2)
        mean, spread = parts.mean(2, keepdim=True), parts.var(2, keepdim=True, unbiased=False)
        wanted = ((parts - mean) / (spread + 1e-5).sqrt()).reshape(written.shape)
        if affine:
            wanted = wanted * norm.get_parameter("weight")[kept][:, None, None]
            wanted += norm.get_parameter("bias")[kept][:, None, None]
        torch.testing.assert_close(given[:2](images), wanted)  # type: ignore[index]


def test_of_each_group_the_channels_of_the_lowest_scores_go() -> None:
    module = net(lambda width: [nn.GroupNorm(2, width)], 16)
    least = [1, 2, 3, 9, 11, 15]
    with torch.no_grad():
        for name, axis in (("0.weight", 0), ("2.weight", 1)):
            module.get_parameter(name).movedim(axis, 0)[least] *= 1e-3
    group = first_of(module)
    assert sorted(map(len, group.lanes)) == [8, 8]
    scores = {group.root: score for group, score in zip([group], [magnitude(module)], strict=True)}
    assert sorted(group.units_by(scores["0"])[:3].flatten().tolist()) == least


def magnitude(module: nn.Module) -> Any:
    return module.get_parameter("0.weight").detach().double().square().sum((1, 2, 3)).numpy()
