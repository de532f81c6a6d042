"""Pruned models run, are as small as ordered, and lose what matters least."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.exported import export_bytes
from tests.jobimage.modules import Flattened, Residual, residual
from torch import nn

from plimsoll_api.spec import Prune
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count, count_parameters
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import prune
from plimsoll_job.techniques.prune import record
from plimsoll_job.techniques.prune.coupling import cut, find_groups
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Candidate, Change, Cut
from plimsoll_job.zoo import digits_cnn, wine_mlp


def settings(amount: str, criterion: str = "Activation", granularity: str = "Structured", **more: str) -> Prune:
    return Prune.model_validate({"criterion": criterion, "granularity": granularity, "amount": amount} | more)


@pytest.mark.parametrize("criterion", ["Activation", "Magnitude"])
@pytest.mark.parametrize("amount", ["20%", "50%", "72%", "90%"])
# So wide that one coupled channel is not more than a point.
@pytest.mark.parametrize("build", [digits_cnn, partial(Residual, 96), wine_mlp], ids=["cnn", "residual", "mlp"])
def test_the_amount_of_parameters_is_gone_within_a_point(
    build: Callable[[], nn.Module], amount: str, criterion: str
) -> None:
    torch.manual_seed(0)
    module = build().eval()
    samples = samples_of(module.input_shape, 8)  # type: ignore[arg-type]
    applied = prune.apply(settings(amount, criterion), Candidate(module), bench_of(module, calibration=samples))
    share = 1 - count_parameters(applied.candidate.module) / count_parameters(module)
    assert share == pytest.approx(float(amount[:-1]) / 100, abs=0.0101)
    assert applied.details["share"] == pytest.approx(share, abs=1e-6)
    output = applied.candidate.module(torch.from_numpy(samples.inputs["inputs"]))
    assert output.shape == module(torch.from_numpy(samples.inputs["inputs"])).shape


def test_operations_go_with_the_channels() -> None:
    module = digits_cnn().eval()
    applied = prune.apply(settings("60%", "Magnitude"), Candidate(module), bench_of(module))
    before, after = (count(one, single((1, 8, 8))) for one in (module, applied.candidate.module))
    assert (after.macs or 0) < 0.6 * (before.macs or 0)
    assert after.nonzero <= after.parameters < 0.41 * before.parameters


@pytest.mark.parametrize(("of", "criterion"), [("Macs", "Redundancy"), ("Macs", "Activation"), ("Bytes", "Magnitude")])
def test_the_amount_may_be_of_operations_or_of_the_exported_bytes(of: str, criterion: str) -> None:
    torch.manual_seed(0)
    module = digits_cnn().eval()
    bench = bench_of(module, calibration=samples_of((1, 8, 8), 64))

    def size(one: nn.Module) -> int:
        return count(one, bench.signature).macs or 0 if of == "Macs" else len(export_bytes(one, bench.signature))

    applied = prune.apply(settings("60%", criterion, of=of), Candidate(module), bench)
    share = 1 - size(applied.candidate.module) / size(module)
    assert share == pytest.approx(0.6, abs=0.0101)
    assert (applied.details["of"], applied.details["share"]) == (of, pytest.approx(share, abs=1e-6))


def test_neurons_that_are_seldom_above_zero_go_first_by_their_share_of_zeros() -> None:
    module = wine_mlp().eval()
    seldom = [3, 5, 60]
    with torch.no_grad():
        # Large when they fire at all: the mean absolute activation would keep them.
        module.get_parameter("layers.1.bias")[seldom] = -80.0
        module.get_parameter("layers.1.weight")[seldom] *= 100
    samples = samples_of((13,), 64)
    bench = bench_of(module, calibration=samples)
    by_zeros, by_size = (
        prune.apply(settings("30%", statistic=statistic), Candidate(module), bench).candidate.changes
        for statistic in ("ZeroShare", "MeanAbsolute")
    )

    def gone(changes: tuple[Change, ...]) -> set[int]:
        return {
            channel for one in changes if isinstance(one, Cut) and one.layer == "layers.1" for channel in one.channels
        }

    assert set(seldom) <= gone(by_zeros)
    assert not set(seldom) & gone(by_size)


def test_the_share_of_zeros_of_what_is_never_zero_is_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 3)).eval()
    module.input_shape = (4,)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"prune.statistic: all channels of a layer are zero equally often"):
        prune.apply(
            settings("30%", statistic="ZeroShare"),
            Candidate(module),
            bench_of(module, calibration=samples_of((4,), 16)),
        )


def test_the_record_tells_which_channels_went_or_of_many_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    module = digits_cnn().eval()
    applied = prune.apply(settings("60%", "Magnitude"), Candidate(module), bench_of(module))
    gone = {one.layer: list(one.channels) for one in applied.candidate.changes if isinstance(one, Cut)}
    assert applied.details["gone"] == gone
    assert {
        name: before - after for name, (before, after) in applied.details["channels"].items() if before > after
    } == {name: len(channels) for name, channels in gone.items()}
    monkeypatch.setattr(record, "MOST_NUMBERS", 1)
    again = prune.apply(settings("60%", "Magnitude"), Candidate(module), bench_of(module)).details
    assert "gone" not in again
    assert again["goneDigest"] == applied.details["goneDigest"]


def test_the_given_module_stays_as_it_was() -> None:
    module = digits_cnn().eval()
    prune.apply(settings("60%", "Magnitude"), Candidate(module), bench_of(module))
    assert count_parameters(module) == 326_346


def test_channels_that_are_added_go_together() -> None:
    added, inner = find_groups(Residual().eval(), single((3, 8, 8)))
    assert {member.name for member in inner.producers} == {"inner.0"}
    assert {member.name for member in added.producers} == {"stem.0", "outer.0"}
    assert {member.name for member in added.consumers} == {"inner.0", "head"}


def test_the_output_layer_is_no_group() -> None:
    assert "layers.5" not in {group.root for group in find_groups(wine_mlp().eval(), single((13,)))}


def test_channels_without_effect_go_first_and_change_no_answer() -> None:
    module = Flattened().eval()
    dead = [1, 4, 6]  # of the convolution; six hidden neurons are dead besides
    with torch.no_grad():
        module.conv.weight[dead], module.conv.bias[dead] = 0.0, 0.0  # type: ignore[index]
        module.hidden.weight[10:], module.hidden.bias[10:] = 0.0, -1.0
    samples = samples_of((1, 4, 4), 50)
    pruned = prune.apply(settings("40%"), Candidate(module), bench_of(module, calibration=samples)).candidate
    (channels,) = [one.channels for one in pruned.changes if isinstance(one, Cut) and one.layer == "conv"]
    assert set(channels) <= set(dead)
    inputs = torch.from_numpy(samples.inputs["inputs"])
    assert torch.allclose(pruned.module(inputs), module(inputs), atol=1e-6)


def test_cuts_replayed_on_the_factorys_module_give_the_same_shapes() -> None:
    module = residual().eval()
    bench = bench_of(module, calibration=samples_of((3, 8, 8), 8))
    once = prune.apply(settings("30%"), Candidate(module), bench).candidate
    twice = prune.apply(settings("30%"), once, bench).candidate
    replayed = replay(residual().eval(), single((3, 8, 8)), twice.changes)
    replayed.load_state_dict(twice.module.state_dict(), strict=True)
    inputs = torch.randn(2, 3, 8, 8)
    assert torch.equal(replayed(inputs), twice.module(inputs))


def test_frozen_parameters_do_not_hide_their_layers() -> None:
    module = residual().eval().requires_grad_(requires_grad=False)
    assert len(find_groups(module, single((3, 8, 8)))) == 2
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_a_model_that_cannot_be_traced_is_refused() -> None:
    class Opaque(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            raise LookupError("no way")

    with pytest.raises(UserError, match="structured pruning cannot follow this model: no way"):
        find_groups(Opaque(), single((3,)))


def test_cuts_of_a_layer_keep_the_others_weights() -> None:
    module = wine_mlp().eval()
    pruned = cut(module, single((13,)), [Cut("layers.1", (0, 2))])
    kept = [1, *range(3, 64)]
    assert torch.equal(pruned.get_parameter("layers.1.weight"), module.get_parameter("layers.1.weight")[kept])
    assert torch.equal(pruned.get_parameter("layers.3.weight"), module.get_parameter("layers.3.weight")[:, kept])
    assert torch.equal(pruned.get_parameter("layers.5.weight"), module.get_parameter("layers.5.weight"))


@pytest.mark.parametrize(
    ("amount", "granularity", "words"),
    [
        (
            "99.9%",
            "Structured",
            r"amount: 99.9% cannot be reached; \d+.\d% of the parameters can go before a layer would be empty",
        ),
        ("0.01%", "Structured", "amount: 0.01% is less than the smallest channel"),
        ("0.00001%", "Structured", "amount: 0.00001% is less than the smallest channel"),
        ("99.9%", "Unstructured", "are 9.*% of the parameters"),
    ],
)
def test_amounts_that_cannot_be_are_refused(amount: str, granularity: str, words: str) -> None:
    module = Flattened().eval()
    with pytest.raises(UserError, match=words) as error:
        prune.apply(settings(amount, "Magnitude", granularity), Candidate(module), bench_of(module))
    assert error.value.message.startswith("spec.steps[0].prune.amount: ")


def test_activation_pruning_needs_calibration_data() -> None:
    module = wine_mlp().eval()
    with pytest.raises(UserError, match=r"spec.data.calibration: spec.steps\[0\].prune needs calibration data"):
        prune.apply(settings("50%"), Candidate(module), bench_of(module))


def test_a_model_without_inner_channels_is_refused() -> None:
    module = nn.Sequential(nn.Linear(13, 3)).eval()
    module.input_shape = (13,)  # type: ignore[assignment]
    with pytest.raises(UserError, match="no layer whose channels could go"):
        prune.apply(settings("50%", "Magnitude"), Candidate(module), bench_of(module))


def test_equal_scores_fall_the_same_way_every_time() -> None:
    module = wine_mlp().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.5)
    cuts = [
        prune.apply(settings("50%", "Magnitude"), Candidate(module), bench_of(module)).candidate.changes
        for _ in range(2)
    ]
    assert cuts[0] == cuts[1]
    assert all(isinstance(one, Cut) and one.channels for one in cuts[0])


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
