"""Losses are told to six significant digits, however small the numbers are that the model answers with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from torch import nn

from plimsoll_api.report import Progress
from plimsoll_api.spec import Distill, Task
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques import distill
from plimsoll_job.techniques.distill.lesson import CURVE_POINTS, tell_epochs, thin
from plimsoll_job.techniques.quantize.fidelity import Fidelity
from plimsoll_job.techniques.record import six_digits
from plimsoll_job.techniques.shape import Candidate
from plimsoll_job.zoo import wine_mlp


@pytest.mark.parametrize(
    ("value", "told"),
    [(1.23456789e-9, 1.23457e-9), (0.1, 0.1), (123456.789, 123457.0), (0.0, 0.0), (-2.5e-7, -2.5e-7)],
)
def test_six_digits_are_told_of_any_number(value: float, told: float) -> None:
    assert six_digits(value) == told


def test_a_curve_keeps_its_first_and_last_points_and_six_digits() -> None:
    curve = thin([1.23456789e-8 / (1 + epoch) for epoch in range(200)])
    assert len(curve) == CURVE_POINTS
    assert (curve[0], curve[-1]) == (1.23457e-8, 6.17284e-11)


def test_an_error_of_a_quantized_model_is_told_however_small() -> None:
    assert Fidelity(error=3.45678912e-8, changed=1 / 3).to_details() == {"error": 3.45679e-8, "changed": 0.333333}


def small_regression(seed: int) -> nn.Module:
    """Return a model whose answers are near 1e-4."""
    torch.manual_seed(seed)
    module = wine_mlp().eval()
    with torch.no_grad():
        for parameter in module.layers[-1].parameters():  # type: ignore[index, union-attr]
            parameter.mul_(1e-4)
    return module


def test_the_losses_of_a_regression_with_small_numbers_are_not_zero() -> None:
    said: list[Progress] = []
    bench = bench_of(small_regression(0), train=samples_of((13,), 50))
    bench = replace(bench, task=Task.REGRESSION, reporter=Reporter(emit=said.append))
    order = Distill.model_validate({"epochs": 4, "batchSize": 16, "learningRate": "0.00001"})
    details = distill.apply(order, Candidate(small_regression(1)), bench).details
    for curve in (details["loss"], details["losses"]["logits"]["curve"]):
        assert len(set(curve)) == 4
        assert all(0 < loss < 1e-6 for loss in curve)
    told = {float(one.message.rpartition(" ")[2]) for one in said if "loss" in one.message}
    assert told
    assert told <= set(details["loss"])


def test_progress_tells_epochs_apart() -> None:
    said: list[Progress] = []
    tell = tell_epochs(Reporter(emit=said.append), "quantize", 2)
    tell(1, 0.00012345678)
    tell(2, 0.00012335678)
    assert [one.message for one in said] == ["epoch 1/2, loss 0.000123457", "epoch 2/2, loss 0.000123357"]
