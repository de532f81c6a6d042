"""Ranges of activations: histograms count what counts, and each method cuts off what it promises to."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.graphs import exported, load, save
from tests.jobimage.haswell import here
from tests.jobimage.test_padding import other_padding
from tests.jobimage.test_quantize import graph_of, setting
from tests.jobimage.texts import TEXT, sentences, tiny_bert
from torch import nn

from plimsoll_api.spec import Quantize, RangeMethod, Task
from plimsoll_job.export.graph import opset
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import single
from plimsoll_job.load.signature import signature_of
from plimsoll_job.techniques import quantize
from plimsoll_job.techniques.quantize.float_model import FloatModel, float_model_of
from plimsoll_job.techniques.quantize.ranges import Observed, observe_ranges, read_ranges
from plimsoll_job.techniques.quantize.ranges.histogram import BINS, Histogram
from plimsoll_job.techniques.quantize.ranges.methods import METHODS, Ends
from plimsoll_job.techniques.shape import Applied, Candidate
from plimsoll_job.zoo import digits_cnn

SEEDS = (0, 1, 2)
CUTTING = (RangeMethod.PERCENTILE, RangeMethod.MSE, RangeMethod.ENTROPY)


def rounded(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Round as an unsigned integer of 8 bits does, with the zero point that ONNX Runtime finds."""
    step = (high - low) / 255
    zero = np.round(-low / step)
    found: NDArray[np.float64] = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return found


def squared_error(values: NDArray[np.float64], ends: Ends) -> float:
    return float(((rounded(values, *ends) - values) ** 2).mean())


@cache
def reader() -> FloatModel:
    module = nn.Linear(1000, 64)
    return float_model_of(Candidate(module), single((1000,)))


def histogram_of(values: NDArray[np.float64]) -> Histogram:
    """Count the values as the graph of a model does that reads them."""
    samples = replace(samples_of((1000,), 1), inputs={"inputs": values.astype(np.float32).reshape(-1, 1000)})
    return Observed.of(reader(), samples)._histograms["inputs"]


DISTRIBUTIONS: dict[str, Any] = {
    "normal": lambda chance, count: chance.normal(size=count),
    "rectified": lambda chance, count: np.maximum(0, chance.normal(size=count)),
    "long tails": lambda chance, count: chance.standard_t(3, size=count),
    "one-sided": lambda chance, count: chance.random(count) + 0.5,
    "outlier": lambda chance, count: np.append(chance.normal(size=count - 1), 1000.0),
}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_a_histogram_tells_how_many_values_lie_below_any(kind: str) -> None:
    values = DISTRIBUTIONS[kind](np.random.default_rng(0), 100_000)
    histogram = histogram_of(values)
    assert len(histogram.counts) == BINS
    assert histogram.counts.sum() == values.size
    assert histogram.edges[[0, -1]] == pytest.approx([values.min(), values.max()])
    asked = np.quantile(values, [0.001, 0.1, 0.5, 0.9, 0.999])
    # Zeros of a rectifier are all in one bin.
    assert np.abs(histogram.below(asked + 1e-3) - [(values <= one + 1e-3).mean() for one in asked]).max() < 0.005


@pytest.mark.parametrize("seed", SEEDS)
def test_percentile_cuts_off_one_of_ten_thousand_and_no_more(seed: int) -> None:
    values = np.random.default_rng(seed).standard_t(3, size=400_000)
    low, high = METHODS[RangeMethod.PERCENTILE](histogram_of(values))
    assert 0.00003 < (values < low).mean() <= 0.00005
    assert 0.00003 < (values > high).mean() <= 0.00005
    rectified = METHODS[RangeMethod.PERCENTILE](histogram_of(np.maximum(0, values)))
    assert rectified == pytest.approx((0, high), rel=0.02)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_mse_finds_the_least_squared_error_of_a_grid_of_ends(kind: str, seed: int) -> None:
    values = DISTRIBUTIONS[kind](np.random.default_rng(seed), 50_000)
    low, high = min(0, values.min()), max(0, values.max())
    found = squared_error(values, METHODS[RangeMethod.MSE](histogram_of(values)))
    shares = np.geomspace(0.01, 1, 24)
    least = min(
        squared_error(values, (low * below, high * above)) for below in (shares if low else [1]) for above in shares
    )
    assert found <= 1.05 * least
    assert found <= 1.02 * squared_error(values, (low, high))


@pytest.mark.parametrize("seed", SEEDS)
def test_entropy_gives_up_a_value_far_off_and_no_value_of_a_flat_distribution(seed: int) -> None:
    chance = np.random.default_rng(seed)
    low, high = METHODS[RangeMethod.ENTROPY](histogram_of(np.append(chance.normal(size=99_999), 1000.0)))
    assert -5 < low < -3
    assert 3 < high < 50
    flat = chance.random(100_000)
    assert METHODS[RangeMethod.ENTROPY](histogram_of(flat)) == pytest.approx((0, flat.max()), rel=1e-6)
    # Chance makes most of a histogram of few values.
    few = chance.normal(size=2_000)
    assert METHODS[RangeMethod.ENTROPY](histogram_of(few)) == pytest.approx((few.min(), few.max()))


@pytest.mark.parametrize("method", CUTTING)
def test_every_range_holds_zero_and_rectified_values_keep_it_as_an_end(method: RangeMethod) -> None:
    chance = np.random.default_rng(0)
    for values in (chance.random(50_000) + 3, -chance.random(50_000) - 3, np.maximum(0, chance.normal(size=50_000))):
        low, high = METHODS[method](histogram_of(values))
        assert low <= 0 <= high
        assert low < high
        assert (low == 0) == (values.min() >= 0)
        assert (high == 0) == (values.max() <= 0)


class Photographs(nn.Module):
    """Patches of large images, a convolution over them, and answers of the mean."""

    input_shape = (1, 256, 256)

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.inner = nn.Conv2d(1, 32, 16, stride=16), nn.Conv2d(32, 64, 3)
        self.head = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.inner(torch.relu(self.patches(images))))
        answers: torch.Tensor = self.head(hidden.mean((2, 3)))
        return answers


def photographs(seed: int, outlier: float = 400.0) -> tuple[nn.Module, Samples]:
    """Return a model and samples, one pixel of which is far beyond all others."""
    torch.manual_seed(seed)
    samples = samples_of(Photographs.input_shape, 64, seed=seed)
    samples.inputs["inputs"][7, 0, 40, 50] = outlier
    return Photographs().eval(), samples


def by(method: str, module: nn.Module, samples: Samples) -> Applied:
    settings = Quantize.model_validate({"scheme": "Int8Static", "ranges": method})
    return quantize.apply(settings, Candidate(module), bench_of(module, calibration=samples))


def held_out_error(module: nn.Module, applied: Applied, seed: int) -> float:
    samples = samples_of(module.input_shape, 32, seed=100 + seed)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = module(torch.from_numpy(samples.inputs["inputs"])).numpy()
    given = here(graph_of(applied), samples.inputs)
    return float(np.sqrt(((given - expected) ** 2).mean()) / (expected - expected.mean(0)).std())


@pytest.mark.parametrize("seed", SEEDS)
def test_one_pixel_spoils_the_range_of_min_max_and_of_no_other(seed: int) -> None:
    module, samples = photographs(seed)
    errors = {method: held_out_error(module, by(method, module, samples), seed) for method in RangeMethod}
    assert all(errors[method] < 0.5 * errors[RangeMethod.MIN_MAX] for method in CUTTING), errors


def test_the_record_names_the_method_and_how_many_ranges_it_narrowed() -> None:
    module, samples = photographs(0)
    whole, narrow = by("MinMax", module, samples).details, by("Mse", module, samples).details
    assert whole["ranges"] == {"method": "MinMax"}
    assert narrow["ranges"]["method"] == "Mse"
    assert 1 <= narrow["ranges"]["narrowed"] <= narrow["ranges"]["activations"]
    before, after = (details["layers"][0]["inputRange"] for details in (whole, narrow))
    assert after[1] < 0.2 * before[1]


@pytest.mark.parametrize("method", RangeMethod)
def test_ranges_by_any_method_are_those_of_tokens_that_count(method: RangeMethod) -> None:
    samples = sentences()
    model = float_model_of(Candidate(tiny_bert()), TEXT)
    one, other = (read_ranges(observe_ranges(model, given, method)) for given in (samples, other_padding(samples)))
    assert one == other
    assert samples.mask is not None
    as_data = read_ranges(observe_ranges(model, replace(samples, mask=np.ones_like(samples.mask)), method))
    assert one != as_data


def test_a_value_without_width_keeps_its_ends() -> None:
    first = nn.Linear(1000, 64)
    with torch.no_grad():
        first.weight.zero_()
        first.bias.fill_(2)
    module = nn.Sequential(first, nn.Linear(64, 64))
    samples = samples_of((1000,), 32)
    observed = Observed.of(float_model_of(Candidate(module), single((1000,))), samples)
    flat = [name for name, (low, high) in observed.ends.items() if low == high]
    assert flat
    for method in RangeMethod:
        assert all(observed.ranges(method)[name] == (2, 2) for name in flat)


def test_graphs_of_older_operator_sets_are_observed_too(tmp_path: Path) -> None:
    module, samples, _ = setting(digits_cnn)
    save(tmp_path, exported(module, torch.from_numpy(samples.inputs["inputs"][:2]), opset_version=13))
    source = load(tmp_path)
    model = float_model_of(Candidate(source.module), signature_of(source.module, {}, Task.IMAGE_CLASSIFICATION))
    assert opset(model.lean().proto) == 13
    given = replace(samples, inputs={"pixels": samples.inputs["inputs"]})
    whole, narrow = (
        read_ranges(observe_ranges(model, given, method)) for method in (RangeMethod.MIN_MAX, RangeMethod.PERCENTILE)
    )
    assert whole != narrow
    assert all(whole[name][0] <= low <= high <= whole[name][1] for name, (low, high) in narrow.items())
