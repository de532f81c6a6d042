"""Auto settles how integers are found by the error on samples that nothing was fitted to, and by more than chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.padded import padded_samples
from tests.jobimage.test_quantize import setting
from tests.jobimage.test_quantize_choice import applied
from tests.jobimage.test_quantize_ranges import Photographs, photographs
from torch import nn

from plimsoll_api.spec import Equalization, Quantize, QuantizeScheme, RangeMethod
from plimsoll_job.load.data import Samples
from plimsoll_job.techniques import quantize
from plimsoll_job.techniques.quantize import auto
from plimsoll_job.techniques.quantize.fidelity import compare, error_of, squares_by_sample
from plimsoll_job.techniques.quantize.fit.method import Method
from plimsoll_job.techniques.quantize.fit.search import FEWEST, Choice, choose_method, is_less, parts
from plimsoll_job.techniques.quantize.float_model import float_model_of
from plimsoll_job.techniques.quantize.start import Start
from plimsoll_job.techniques.shape import Candidate
from plimsoll_job.zoo import digits_cnn

SEEDS = (0, 1, 2)
OTHERS = {"equalization": "None", "rounding": "Nearest", "bias": "Keep"}


def chosen(module: nn.Module, samples: Samples, scheme: str = "Int8Static", **settings: Any) -> Choice:
    bench = bench_of(module, calibration=samples)
    start = Start.of(float_model_of(Candidate(module), bench.signature), samples)
    order = Quantize.model_validate({"scheme": "Auto", **settings})
    return choose_method(QuantizeScheme(scheme), start, order, bench, weight_bits=7, report=lambda _: None)


def flat_images(seed: int) -> Samples:
    """Return images all values of which are as likely: whatever is cut off is missed."""
    images = np.random.default_rng(seed).uniform(-1, 1, (64, *Photographs.input_shape)).astype(np.float32)
    return replace(samples_of((1,), 1), inputs={"inputs": images})


@pytest.mark.parametrize("seed", SEEDS)
def test_ranges_of_all_values_are_kept_where_none_is_far_off_and_others_taken_where_one_is(seed: int) -> None:
    torch.manual_seed(seed)
    module, samples = Photographs().eval(), flat_images(seed)
    plain = chosen(module, samples, **OTHERS)
    assert plain.method == Method()
    assert [one.method.ranges for one in plain.tries] == list(RangeMethod)
    # Of those that ranges are fitted to.
    spoilt = int(np.setdiff1d(np.arange(64), judges(samples))[0])
    samples.inputs["inputs"][spoilt, 0, 40, 50] = 400
    taken = chosen(module, samples, **OTHERS)
    assert taken.method.ranges is not RangeMethod.MIN_MAX
    errors = {one.method.ranges: one.error for one in taken.tries}
    assert errors[taken.method.ranges] < 0.6 * errors[RangeMethod.MIN_MAX]
    assert [one.taken for one in taken.tries] == [True, *(one is taken.method.ranges for one in list(RangeMethod)[1:])]


def judges(samples: Samples) -> list[int]:
    """Return the numbers of the samples that judge."""
    numbered = replace(samples, inputs={"at": np.arange(len(samples))})
    return list(parts(numbered, 0)[1].inputs["at"])


def test_what_judges_is_a_quarter_that_nothing_is_fitted_to_and_the_same_each_time() -> None:
    samples = samples_of((3,), 64)
    known, judged, notes = parts(samples, 0)
    assert (len(known), len(judged), notes) == (48, 16, ())
    rows = [set(map(tuple, one.inputs["inputs"].tolist())) for one in (known, judged)]
    assert not rows[0] & rows[1]
    assert np.array_equal(parts(samples, 0)[1].inputs["inputs"], judged.inputs["inputs"])
    few = samples.take(slice(0, FEWEST - 1))
    known, judged, notes = parts(few, 0)
    assert known is judged is few
    assert notes == (f"Auto fitted and judged its choices with the same 31 samples: {FEWEST} would be told apart.",)


def test_what_is_no_less_than_chance_makes_it_is_not_taken() -> None:
    chance = np.random.default_rng(0)
    usual = chance.gamma(2, size=64)
    assert is_less(0.8 * usual, usual)
    assert not is_less(usual, usual)
    assert not is_less(0.99 * usual, usual)
    # Less on the whole, by a few samples that differ much both ways.
    assert not is_less(usual * np.where(np.arange(64) == usual.argmax(), 0.3, 1.0), usual)
    assert not is_less(np.full(64, np.nan), usual)
    draws = [is_less(chance.gamma(2, size=64), chance.gamma(2, size=64)) for _ in range(200)]
    assert np.mean(draws) < 0.06


def test_errors_by_sample_are_those_that_fidelity_tells() -> None:
    chance = np.random.default_rng(0)
    samples = padded_samples(20)
    assert samples.mask is not None
    expected, given = chance.normal(size=(2, samples.mask.sum(), 3))
    squares = squares_by_sample(expected, given, samples)
    assert squares.shape == (20,)
    assert error_of(squares, expected) == pytest.approx(compare(expected, given).error)
    first = samples.mask[0].sum()
    share = 20 / samples.mask.sum()
    assert squares[0] == pytest.approx(((given - expected)[:first] ** 2).mean(axis=1).sum() * share)


def test_fields_that_are_set_are_left_at_that() -> None:
    module, samples, _ = setting(digits_cnn)
    choice = chosen(module, samples, ranges="Percentile", rounding="Gptq", equalization="None")
    assert choice.method.ranges is RangeMethod.PERCENTILE
    assert len(choice.tries) == 2
    assert {(one.method.ranges, one.method.equalization) for one in choice.tries} == {
        (RangeMethod.PERCENTILE, Equalization.NONE)
    }
    assert chosen(module, samples, ranges="Mse", **OTHERS) == Choice(Method(ranges=RangeMethod.MSE))


def test_the_table_of_auto_tells_each_try_and_the_taken_one_is_made_of_all_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auto, "_time", lambda *_: ())
    torch.manual_seed(0)
    record = applied(digits_cnn(), "Auto", equalization="None").details
    table = {one["scheme"]: one for one in record["table"]}
    assert "tries" not in table["Float16"]
    tries = table["Int8Static"]["tries"]
    assert len(tries) == 6
    assert all(0 < one["error"] < 1 for one in tries)
    last = [one for one in tries if one["taken"]][-1]
    assert {field: record[field]["method"] for field in ("ranges", "rounding", "bias")} == {
        field: last[field] for field in ("ranges", "rounding", "bias")
    }
    assert record["calibrationSamples"] == 64
    assert table["Int4WeightOnly"]["tries"][0].keys() == {"equalization", "rounding", "bias", "error", "taken"}


def test_training_begins_with_the_ranges_that_were_asked_for() -> None:
    module, samples = photographs(0)
    bench = bench_of(module, train=samples.take(slice(32, None)), calibration=samples)
    begun = {}
    for method in (RangeMethod.MIN_MAX, RangeMethod.PERCENTILE):
        order = {"scheme": "Int8QAT", "ranges": method, "training": {"epochs": 1, "batchSize": 16}}
        details = quantize.apply(Quantize.model_validate(order), Candidate(module), bench).details
        assert details["ranges"]["method"] == method
        [patches] = [layer for layer in details["layers"] if layer["layer"] == "patches"]
        # Where training brought nothing, it is Int8Static's by the same ranges.
        begun[method] = patches.get("calibratedRange", patches["inputRange"])[1]
    assert begun[RangeMethod.PERCENTILE] < 10
    assert begun[RangeMethod.MIN_MAX] > 390
