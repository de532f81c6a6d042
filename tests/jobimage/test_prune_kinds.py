"""What goes behind every kind of layer, and that what is left is a model of its kind, which answers as it should."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.bench import batches_of, bench_of, samples_of
from tests.jobimage.exported import export_bytes
from tests.jobimage.planted import pruned
from torch import nn
from torch.nn import functional

from plimsoll_api.spec import Prune
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count_parameters
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import prune
from plimsoll_job.techniques.prune.compensation import compensate
from plimsoll_job.techniques.prune.coupling import cut, find_coupling, find_groups
from plimsoll_job.techniques.prune.groups import ChannelGroup
from plimsoll_job.techniques.prune.redundancy import redundancy_scores
from plimsoll_job.techniques.shape import Candidate, Cut

IMAGES = single((3, 8, 8))
Between = Callable[[int], list[nn.Module]]


def net(between: Between, width: int, read: Callable[[int], int] = lambda width: width) -> nn.Module:
    """Return two convolutions with something between them, of which the first writes so many channels."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), *between(width), nn.Conv2d(read(width), 12, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    ).eval()  # fmt: skip
    module.input_shape = (3, 8, 8)  # type: ignore[assignment]
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1 and not name.startswith("0."):
            nn.init.uniform_(parameter, 0.5, 1.5)
    return module


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


def first_of(module: nn.Module) -> ChannelGroup:
    return next(group for group in find_groups(module, IMAGES) if group.root == "0")


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


class AlongChannels(nn.Module):
    """Neighbouring channels weigh each other, as in ECA."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.mix(images.mean((2, 3))[:, None]).sigmoid()
        return images * weights[:, 0, :, None, None]


class InOrder(nn.Module):
    """Each channel and all before it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.cumsum(1)


class Unknown(nn.Module):
    """An operation that leads from channels to no channels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = torch.fft.fft(images, dim=1).real
        return answers


@pytest.mark.parametrize(
    ("between", "why"),
    [
        (nn.LocalResponseNorm(3), r"avg_pool3d in 1 \(LocalResponseNorm\) runs along them"),
        (AlongChannels(), r"a convolution in 1.mix \(Conv1d\) runs along them"),
        (InOrder(), r"their order counts at cumsum in 1 \(InOrder\)"),
        (Unknown(), r"_fft_r2c in 1 \(Unknown\)"),
    ],
    ids=["neighbours", "along", "order", "unknown"],
)
def test_channels_that_cannot_be_followed_stay_and_are_named(between: nn.Module, why: str) -> None:
    module = net(lambda _: [between], 16)
    applied = pruned(module, samples_of((3, 8, 8), 16), "10%", "Magnitude")
    assert applied.candidate.module.get_parameter("0.weight").shape[0] == 16
    (left,) = (one for one in applied.left if one.layer == "0")
    assert left.kind == "Conv2d"
    assert re.search(why, left.reason)


class Generator(nn.Module):
    """Numbers that become an image: a linear layer, seen as channels of places, and transposed convolutions."""

    input_shape = (16,)

    def __init__(self) -> None:
        super().__init__()
        self.start, self.first = nn.Linear(16, 96), nn.ConvTranspose2d(24, 16, 4, 2, 1)
        self.second, self.last = nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        images = self.start(numbers).relu().view(-1, self.first.in_channels, 2, 2)
        answers: torch.Tensor = self.last(self.second(self.first(images).relu()).relu())
        return answers.flatten(1)


@pytest.mark.parametrize("criterion", ["Magnitude", "Activation", "Taylor", "Redundancy"])
def test_channels_go_through_a_view_to_a_transposed_convolution(criterion: str) -> None:
    torch.manual_seed(0)
    module = Generator().eval()
    start = next(group for group in find_groups(module, single((16,))) if group.root == "start")
    assert start.units[0] == (0, 1, 2, 3)
    applied = pruned(module, samples_of((16,), 64), "30%", criterion)
    left = applied.candidate.module
    assert 1 - count_parameters(left) / count_parameters(module) == pytest.approx(0.3, abs=0.03)
    assert left(torch.randn(3, 16)).shape == (3, 64)
    export_bytes(left, single((16,)))


def test_what_a_transposed_convolution_reads_twice_is_refitted() -> None:
    torch.manual_seed(0)
    module = Generator().eval()
    with torch.no_grad():
        for tensor, axis in ((module.first.weight, 1), (module.first.bias, 0)):
            assert tensor is not None
            tensor.movedim(axis, 0)[3] = tensor.movedim(axis, 0)[5]
    inputs = torch.from_numpy(samples_of((16,), 256).inputs["inputs"])
    groups, one = find_groups(module, single((16,))), Cut("first", (3,))
    scores = redundancy_scores(module, groups, batches_of(inputs))["first"]
    assert scores.argmin() in (3, 5)
    less = cut(module, single((16,)), [one])
    compensate(module, less, groups, [one], batches_of(inputs))
    numbers = torch.randn(8, 16)
    with torch.no_grad():
        assert torch.allclose(less(numbers), module(numbers), atol=1e-3)


class Recurrent(nn.Module):
    """Steps that a recurrent layer reads, what it answers last, and the state that it begins with."""

    input_shape = (7, 6)

    def __init__(self, kind: type[nn.RNNBase], *, own_state: bool = False, hidden: int = 24, **options: Any) -> None:
        super().__init__()
        self.own_state, self.hidden = own_state, hidden
        both = 2 if options.get("bidirectional") else 1
        self.up, self.core = nn.Linear(6, 12), _made(kind, 12, hidden, options)
        self.head = nn.Linear(hidden * both, 3)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        state = (torch.zeros(1, len(steps), self.hidden),) if self.own_state else ()
        answers: torch.Tensor = self.head(self.core(self.up(steps).relu(), *state)[0][:, -1])
        return answers


RECURRENT: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "LSTM": (nn.LSTM, {}),
    "GRU": (nn.GRU, {}),
    "RNN": (nn.RNN, {}),
    "two layers": (nn.LSTM, {"num_layers": 2}),
    "both directions": (nn.GRU, {"bidirectional": True}),
    "its own state": (nn.GRU, {"own_state": True}),
}


@pytest.mark.parametrize("criterion", ["Magnitude", "Activation", "Taylor", "Redundancy"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_lose_hidden_units(name: str, criterion: str) -> None:
    kind, options = RECURRENT[name]
    torch.manual_seed(0)
    module = Recurrent(kind, **options).eval()
    applied = pruned(module, samples_of((7, 6), 64), "40%", criterion)
    left: Any = applied.candidate.module
    assert 1 - count_parameters(left) / count_parameters(module) == pytest.approx(0.4, abs=0.03)
    assert left.core.hidden_size < 24
    smaller = Recurrent(kind, hidden=left.core.hidden_size, **options).eval()
    smaller.up, smaller.core.input_size = nn.Linear(6, left.up.out_features), left.up.out_features
    smaller.core = _made(kind, left.up.out_features, left.core.hidden_size, options)
    smaller.load_state_dict(left.state_dict())
    steps = torch.randn(5, 7, 6)
    with torch.no_grad():
        torch.testing.assert_close(smaller.eval()(steps), left(steps))


def _made(kind: Any, width: int, hidden: int, options: dict[str, Any]) -> nn.RNNBase:
    own = {name: value for name, value in options.items() if name != "own_state"}
    layer: nn.RNNBase = kind(width, hidden, batch_first=True, **own)
    return layer


def test_a_hidden_unit_that_nobody_reads_goes_first_and_is_not_missed() -> None:
    torch.manual_seed(0)
    module = Recurrent(nn.LSTM).eval()
    with torch.no_grad():
        module.head.weight[:, 5] = 0
        module.core.get_parameter("weight_hh_l0")[:, 5] = 0
    applied = pruned(module, samples_of((7, 6), 64), "5%", "Activation")
    assert applied.candidate.changes
    less = cut(module, single((7, 6)), [Cut("core", (5,))])
    steps = torch.randn(5, 7, 6)
    with torch.no_grad():
        torch.testing.assert_close(less(steps), module(steps))


class Attends(nn.Module):
    """Attention of names that nobody knows, with fewer keys than queries where `shared`."""

    input_shape = (6, 32)

    def __init__(self, *, shared: int = 1) -> None:
        super().__init__()
        self.slots, self.shared, self.size = 8, shared, 8
        self.ask, self.answer = nn.Linear(32, 64), nn.Linear(64, 32)
        self.offer = nn.Linear(32, 2 * 64 // shared)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        asked = self.ask(rows).view(len(rows), -1, self.slots, self.size).transpose(1, 2)
        offered = self.offer(rows).view(len(rows), rows.shape[1], 2, -1, self.size).permute(2, 0, 3, 1, 4)
        keys, values = (one.repeat_interleave(self.shared, dim=1) for one in offered)
        scores = (asked @ keys.transpose(-1, -2) / self.size**0.5).softmax(-1)
        mixed = (scores @ values).transpose(1, 2).flatten(2)
        hidden = rows + self.answer(mixed)
        answers: torch.Tensor = self.down(self.up(hidden).relu()).mean(1)
        return answers


@pytest.mark.parametrize("criterion", ["Magnitude", "Activation", "Taylor", "Redundancy"])
@pytest.mark.parametrize("shared", [1, 2, 4])
def test_heads_go_whatever_they_are_called_with_the_keys_that_they_share(shared: int, criterion: str) -> None:
    torch.manual_seed(0)
    module = Attends(shared=shared).eval()
    heads = next(group for group in find_groups(module, single((6, 32))) if group.root == "ask")
    assert heads.of_heads
    assert heads.units[0] == tuple(range(8 * shared))
    applied = pruned(module, samples_of((6, 32), 64), "45%", criterion)
    left: Any = applied.candidate.module
    count = left.ask.out_features // 8
    assert (left.slots, left.answer.in_features, left.offer.out_features) == (count, 8 * count, 16 * count // shared)
    assert count < 8
    assert count % shared == 0
    assert applied.details["heads"] == {"ask": [8 // shared, count // shared]}
    assert left.up.in_features == 32


def test_a_model_of_which_nothing_can_go_says_why() -> None:
    module = nn.Sequential(nn.Linear(4, 3))
    module.input_shape = (4,)  # type: ignore[assignment]
    settings = Prune.model_validate({"criterion": "Magnitude", "amount": "10%"})
    with pytest.raises(UserError, match=r"no layer whose channels could go.*they are the model's answers"):
        prune.apply(settings, Candidate(module.eval()), bench_of(module))


class Keeps(nn.Module):
    """Keeps what it computed of its weights, as LeViT's attention does: autograd's tensors cannot be copied."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.scale = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1), nn.Parameter(torch.ones(16))
        self.known: dict[str, torch.Tensor] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if "scale" not in self.known:
            self.known["scale"] = self.scale.exp()[:, None, None]
        answers: torch.Tensor = self.last(self.first(images) * self.known["scale"])
        return answers.mean((2, 3))


def test_what_a_layer_computed_and_keeps_is_made_anew() -> None:
    torch.manual_seed(0)
    module = Keeps().eval()
    module(torch.randn(2, 3, 8, 8))
    assert not module.known["scale"].is_leaf
    settings = Prune.model_validate({"criterion": "Magnitude", "amount": "30%"})
    left: Any = prune.apply(settings, Candidate(module), bench_of(Keeps())).candidate.module
    assert left.known["scale"].shape == (left.first.out_channels, 1, 1)
    assert left.first.out_channels < 16


def test_the_search_ends_where_a_graph_of_single_channels_would_run_in_circles() -> None:
    class Circles(nn.Module):
        """Attention between channels, of each head with itself, many times over, as in XCiT."""

        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(64, 192) for _ in range(12)])
            self.outs = nn.ModuleList([nn.Linear(64, 64) for _ in range(12)])
            self.head = nn.Linear(64, 3)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            for block, out in zip(self.blocks, self.outs, strict=True):
                asked, offered, values = block(rows).view(len(rows), -1, 3, 4, 16).permute(2, 0, 3, 4, 1)
                scores = functional.normalize(asked, dim=-1) @ functional.normalize(offered, dim=-1).transpose(-1, -2)
                rows = rows + out((scores.softmax(-1) @ values).permute(0, 3, 1, 2).flatten(2))
            answers: torch.Tensor = self.head(rows.mean(1))
            return answers

    torch.manual_seed(0)
    coupling = find_coupling(Circles().eval(), single((9, 64)))
    assert [len(group.units) for group in coupling.groups] == [4] * 12
