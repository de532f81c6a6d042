"""A scan of what each layer costs decides how much it gives: as much goes, and more of the answers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.learned import accuracy, digits, small_digits
from tests.jobimage.modules import Residual

from plimsoll_api.model import Fraction
from plimsoll_api.spec import Prune
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count, count_parameters
from plimsoll_job.techniques import prune
from plimsoll_job.techniques.prune import sensitivity
from plimsoll_job.techniques.prune.ranking import CLOSE_ENOUGH
from plimsoll_job.techniques.prune.sensitivity import SHARES, Scan, scan
from plimsoll_job.techniques.shape import Applied, Candidate

WANDA = {"criterion": "Activation", "statistic": "Wanda", "granularity": "Unstructured"}


def pruned(**value: Any) -> Applied:
    module = small_digits()
    bench = bench_of(module, calibration=digits(0, 256))
    return prune.apply(Prune.model_validate({"criterion": "Magnitude"} | value), Candidate(module), bench)


@pytest.mark.parametrize(
    ("order", "points"),
    [
        ({"amount": "50%"}, 0.2),
        ({"amount": "70%"}, 0.05),
        ({"amount": "70%", "criterion": "Activation"}, 0.2),
        ({"amount": "80%", **WANDA}, 0.1),
        ({"amount": "80%", "granularity": "Unstructured", "scope": "Layer"}, 0.1),
    ],
    ids=str,
)
def test_more_answers_stay_than_by_the_scores_alone(order: dict[str, Any], points: float) -> None:
    plain, allocated = pruned(**order), pruned(**order, allocation="Sensitivity")
    wanted = float(Fraction(order["amount"]).value)
    assert [one.details["share"] for one in (plain, allocated)] == pytest.approx([wanted] * 2, abs=CLOSE_ENOUGH)
    assert accuracy(allocated.candidate.module) > accuracy(plain.candidate.module) + points


@pytest.mark.parametrize("of", ["Parameters", "Macs", "Bytes"])
def test_the_amount_is_met(of: str) -> None:
    applied = pruned(amount="60%", of=of, allocation="Sensitivity")
    assert applied.details["share"] == pytest.approx(0.6, abs=0.0101)
    if of == "Macs":
        bench = bench_of(small_digits())
        left, whole = (count(one, bench.signature).macs or 0 for one in (applied.candidate.module, small_digits()))
        assert 1 - left / whole == pytest.approx(applied.details["share"], abs=1e-6)


def test_single_weights_meet_the_amount_exactly() -> None:
    left = pruned(amount="60%", granularity="Unstructured", allocation="Sensitivity").candidate.module
    zeros = sum(int((one == 0).sum()) for one in left.parameters())
    assert zeros == pytest.approx(0.6 * count_parameters(left), abs=1)


@pytest.mark.parametrize("granularity", ["Structured", "Unstructured"])
def test_the_record_holds_the_table_and_two_runs_are_alike(granularity: str) -> None:
    order = {"amount": "50%", "allocation": "Sensitivity", "granularity": granularity}
    one, other = pruned(**order), pruned(**order)
    table = one.details["sensitivity"]
    layers = one.details["channels" if granularity == "Structured" else "zeros"]
    assert table["errors"].keys() == layers.keys()
    assert table["forwardPasses"] == 1 + len(layers) * len(SHARES)
    assert all(errors[-1] > errors[0] >= 0 for errors in table["errors"].values())
    assert one.details == other.details
    assert one.candidate.fingerprint() == other.candidate.fingerprint()


def test_the_scan_leaves_the_model_as_it_was() -> None:
    module = small_digits()
    for granularity in ("Structured", "Unstructured"):
        pruned(amount="50%", allocation="Sensitivity", granularity=granularity)
    assert Candidate(module).fingerprint() == Candidate(small_digits()).fingerprint()


def test_many_layers_are_tried_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "MOST_PROBES", 2 * len(SHARES))
    details = pruned(amount="50%", allocation="Sensitivity").details
    table = details["sensitivity"]
    assert table["forwardPasses"] == 1 + 2 * len(SHARES)
    assert table["layersTogether"] == 3
    assert len({tuple(errors) for errors in table["errors"].values()}) == 2
    assert details["share"] == pytest.approx(0.5, abs=0.0101)


def test_the_next_bit_costs_ever_more() -> None:
    found = Scan({"bent": (0.1, 0.05, 0.3, 0.2, 1.0), "free": (0.0,) * 5}, 0, 0, 1)
    shares = np.linspace(0, 1, 101)
    for name in found.errors:
        costs = found.marginal_cost(name, shares)
        assert (np.diff(costs) >= -1e-9).all()
        assert np.isfinite(costs).all()
    assert found.marginal_cost("free", shares).max() == 0


def test_a_layer_that_nothing_depends_on_gives_most() -> None:
    module = small_digits()
    with torch.no_grad():
        module.get_parameter("body.13.weight")[:, :40] = 0
    bench = bench_of(module, calibration=digits(0, 256))
    settings = Prune.model_validate({"criterion": "Magnitude", "amount": "6%", "allocation": "Sensitivity"})
    applied = prune.apply(settings, Candidate(module), bench)
    shares = {layer: 1 - after / before for layer, (before, after) in applied.details["channels"].items()}
    assert max(shares, key=lambda layer: shares[layer]) == "body.11"
    assert sum(share > 0.05 for share in shares.values()) == 1


def test_answers_that_overflow_are_no_number_that_spreads() -> None:
    module = Residual().eval()

    def broken(*_: object) -> Any:
        class Silence:
            def __enter__(self) -> None:
                module.get_parameter("head.bias").data.fill_(float("inf"))

            def __exit__(self, *_: object) -> None:
                module.get_parameter("head.bias").data.fill_(0)

        return Silence()

    found = scan(module, ["head"], broken, samples_of((3, 8, 8), 8))
    assert np.isfinite(found.marginal_cost("head", np.linspace(0, 1, 5))).all()


def test_it_needs_calibration_data() -> None:
    module = small_digits()
    settings = Prune.model_validate({"criterion": "Magnitude", "amount": "50%", "allocation": "Sensitivity"})
    with pytest.raises(UserError, match=r"spec.data.calibration: spec.steps\[0\].prune needs calibration data"):
        prune.apply(settings, Candidate(module), bench_of(module))
