"""An amount in several turns: as much goes as at once, training comes between, and a killed pod loses one epoch."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.jobimage.bench import bench_of, candidate_of, samples_of
from tests.jobimage.learned import TRAINING, digits, small_digits
from tests.jobimage.modules import Residual
from torch import nn

from plimsoll_api.spec import Distill, Prune
from plimsoll_job.checkpoints import Checkpoints
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count, count_parameters
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import distill, prune
from plimsoll_job.techniques.distill.terms import LogitsTerm
from plimsoll_job.techniques.distill.training import Training
from plimsoll_job.techniques.prune.iterations import planned_share
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Applied, Bench

RECOVERY = {"epochs": 3, "batchSize": 16}
SPARSE: dict[str, Any] = {"criterion": "Magnitude", "granularity": "Unstructured", "amount": "80%"}
CHANNELS: dict[str, Any] = {"criterion": "Redundancy", "amount": "50%"}


def bench(module: nn.Module, directory: Path | None = None) -> Bench:
    shape: tuple[int, ...] = module.input_shape  # type: ignore[assignment]
    classes = 5
    made = bench_of(
        module, train=samples_of(shape, 48, classes), calibration=samples_of(shape, 64, classes, seed=1), seed=7
    )
    return replace(made, checkpoints=Checkpoints(directory, seconds_between=0) if directory else None)


def taken(module: nn.Module, on: Bench | None = None, **value: Any) -> Applied:
    settings = Prune.model_validate({"iterations": 3, "recovery": RECOVERY} | value)
    return prune.apply(settings, candidate_of(module), on or bench(module))


@pytest.mark.parametrize("iterations", [1, 2, 3, 10])
def test_each_iteration_takes_the_same_share_of_what_is_left(iterations: int) -> None:
    left = [1 - planned_share(0.8, number, iterations) for number in range(iterations + 1)]
    shares = [after / before for before, after in pairwise(left)]
    assert shares == pytest.approx([shares[0]] * iterations)
    assert left[-1] == pytest.approx(0.2)


@pytest.mark.parametrize("of", ["Parameters", "Macs"])
@pytest.mark.parametrize("criterion", ["Magnitude", "Activation", "Taylor", "Redundancy"])
def test_as_much_goes_as_at_once(criterion: str, of: str) -> None:
    torch.manual_seed(0)
    module = Residual().eval()
    applied = taken(module, criterion=criterion, amount="60%", of=of)
    figures = [count(one, single((3, 8, 8))) for one in (module, applied.candidate.module)]
    sizes = [one.parameters if of == "Parameters" else one.macs or 0 for one in figures]
    assert 1 - sizes[1] / sizes[0] == pytest.approx(0.6, abs=0.0101)
    assert applied.details["share"] == pytest.approx(1 - sizes[1] / sizes[0], abs=1e-6)
    replayed = replay(Residual().eval(), single((3, 8, 8)), applied.candidate.changes)
    replayed.load_state_dict(applied.candidate.module.state_dict(), strict=True)


def test_the_record_tells_of_each_iteration() -> None:
    module = Residual().eval()
    details = taken(module, criterion="Magnitude", amount="60%").details
    first, second, last = details["iterations"]
    assert [one["amount"] for one in (first, second, last)] == [
        round(1 - 0.4 ** (number / 3), 6) for number in (1, 2, 3)
    ]
    assert first["share"] < second["share"] < last["share"] == details["share"]
    for one in (first, second):
        assert one["recovery"]["epochs"] == len(one["recovery"]["loss"]) == RECOVERY["epochs"]
        assert all(map(math.isfinite, one["recovery"]["loss"]))
    assert "recovery" not in last
    for layer, (before, after) in details["channels"].items():
        assert before == first["channels"][layer][0]
        assert after == last["channels"][layer][1]
        assert before - after == sum(len(one["gone"].get(layer, ())) for one in (first, second, last))


def test_of_long_records_the_last_iteration_alone_tells_of_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plimsoll_job.techniques.prune.record.MOST_BYTES", 100)
    details = taken(Residual().eval(), criterion="Magnitude", amount="60%").details
    first, second, last = details["iterations"]
    assert first.keys() == second.keys() == {"amount", "share", "goneDigest", "recovery"}
    assert last["channels"].keys() == details["channels"].keys()


def test_the_model_learns_again_what_a_cut_took() -> None:
    module = small_digits()
    on = bench_of(module, train=digits(0, TRAINING))
    settings = {"criterion": "Magnitude", "amount": "60%", "iterations": 2, "recovery": {"epochs": 3, "batchSize": 32}}
    (first, _) = prune.apply(Prune.model_validate(settings), candidate_of(module), on).details["iterations"]
    loss = first["recovery"]["loss"]
    assert loss[-1] < 0.5 * loss[0]


@pytest.mark.parametrize("scope", ["Global", "Layer", "Output"])
def test_zeros_stay_zero_through_recovery_and_after(scope: str) -> None:
    module = Residual().eval()
    applied = taken(module, **SPARSE, scope=scope)
    left = applied.candidate
    zeros = {name: left.module.get_parameter(name) == 0 for name in left.sparse}
    share = sum(int(one.sum()) for one in zeros.values()) / count_parameters(module)
    assert share == pytest.approx(0.8, abs=1e-3)
    assert applied.details["share"] == pytest.approx(share, abs=1e-6)
    assert applied.details["zeros"] == {
        name.removesuffix(".weight"): round(float(one.float().mean()), 6) for name, one in zeros.items()
    }
    trained = distill.apply(Distill(epochs=1), left, bench(module)).candidate.module
    assert all(bool((trained.get_parameter(name)[one] == 0).all()) for name, one in zeros.items())


@pytest.mark.parametrize("seed", [0, 2])
def test_what_a_scan_finds_gone_counts_as_a_part_of_the_amount(seed: int) -> None:
    torch.manual_seed(seed)
    details = taken(
        Residual().eval(), **SPARSE | {"amount": "60%"}, allocation="Sensitivity", scope="Layer", iterations=6
    ).details
    shares = [(one["share"], one["amount"]) for one in details["iterations"]]
    assert [share for share, _ in shares] == pytest.approx([amount for _, amount in shares], abs=1e-3)


def test_what_went_in_one_iteration_is_gone_in_the_next() -> None:
    torch.manual_seed(0)
    module = Residual().eval()
    (first, *_), once = taken(module, **SPARSE).details["iterations"], taken(module, **SPARSE, iterations=2)
    assert first["zeros"]["inner.0"] < once.details["zeros"]["inner.0"]


class Killed(BaseException):
    """The pod dies."""


@pytest.mark.parametrize("order", [SPARSE, CHANNELS], ids=["weights", "channels"])
def test_a_killed_pod_loses_an_epoch_at_most_and_ends_alike(
    order: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = Residual().eval()
    undisturbed = taken(module, **order)
    train_epoch, trained = Training._train_epoch, [0]

    def mortal(self: Training) -> float:
        trained[0] += 1
        if trained[0] % 2 == 0:
            raise Killed
        return train_epoch(self)

    monkeypatch.setattr(Training, "_train_epoch", mortal)
    deaths = 0
    while True:
        try:
            again = taken(module, bench(module, tmp_path), **order)
            break
        except Killed:
            deaths += 1
    assert deaths == trained[0] // 2 == 2 * RECOVERY["epochs"] - 1
    assert again.candidate.fingerprint() == undisturbed.candidate.fingerprint()
    assert again.candidate.changes == undisturbed.candidate.changes
    assert again.candidate.sparse == undisturbed.candidate.sparse
    assert again.details == undisturbed.details


def test_of_all_that_was_kept_the_newest_iteration_stays_alone(tmp_path: Path) -> None:
    module = Residual().eval()
    taken(module, bench(module, tmp_path), criterion="Magnitude", amount="50%", iterations=4)
    assert {one.relative_to(tmp_path).parts[:2] for one in tmp_path.rglob("*") if one.is_file()} == {
        ("iterations", "epoch-000003")
    }


def test_an_amount_that_cannot_be_met_is_refused_before_any_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Training, "run", None)
    for order in ({"criterion": "Magnitude"}, SPARSE):
        with pytest.raises(UserError, match=r"prune.amount: 99.9% cannot be reached"):
            taken(Residual().eval(), **order | {"amount": "99.9%"})


def test_a_training_that_diverges_names_the_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    # No rate that the field takes makes so small a model diverge.
    monkeypatch.setattr(LogitsTerm, "forward", lambda self, student, *_: student.output.sum() * float("nan"))
    with pytest.raises(UserError, match=r"spec.steps\[0\].prune.recovery.learningRate: training diverged"):
        taken(Residual().eval(), criterion="Magnitude", amount="50%")


def test_data_that_the_model_does_not_answer_is_named_and_not_the_recovery() -> None:
    module = Residual().eval()
    on = bench(module)
    assert on.train is not None
    on.train.inputs["inputs"][:] = float("inf")
    with pytest.raises(UserError, match=r"spec.data.train: the teacher answers 48 of a batch's 48 samples with NaN"):
        taken(module, on, criterion="Magnitude", amount="50%")


def test_iterations_smaller_than_a_channel_wait_for_the_next() -> None:
    details = taken(Residual(width=8).eval(), criterion="Magnitude", amount="8%", iterations=12).details
    assert any("channels" not in one for one in details["iterations"])
    assert not any("recovery" in one for one in details["iterations"] if "channels" not in one)
    assert details["share"] == pytest.approx(0.08, abs=0.02)
