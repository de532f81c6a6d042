"""Layers that stay float by sensitivity, and Auto's choice by measurement."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.claims import Claims, published
from torch import nn

from plimsoll_api.report import RatioInterval
from plimsoll_api.spec import AutoChoice, Metric, Quantize, QuantizeScheme
from plimsoll_job import compress as flow
from plimsoll_job.errors import UserError
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.sessions import serving_gpu
from plimsoll_job.techniques import quantize
from plimsoll_job.techniques.quantize import auto, schemes
from plimsoll_job.techniques.quantize.auto import Row, measure, objection, smallest
from plimsoll_job.techniques.quantize.fidelity import Fidelity, compare
from plimsoll_job.techniques.quantize.float_model import float_model_of
from plimsoll_job.techniques.quantize.layers import Layer
from plimsoll_job.techniques.quantize.schemes import SCHEMES
from plimsoll_job.techniques.quantize.sensitivity import choose_layers
from plimsoll_job.techniques.quantize.start import Start
from plimsoll_job.techniques.shape import Applied, Candidate
from plimsoll_job.zoo import digits_cnn

LAYERS = tuple(Layer(name, name, "Gemm", f"{name}.weight") for name in "abcde")
#: What leaves Auto nothing to choose but the scheme.
DEFAULTS = {"ranges": "MinMax", "rounding": "Nearest", "equalization": "None", "bias": "Keep"}
QUICK = {"latency": {"batchSizes": [1], "rounds": 8, "processes": 2}}


class Outlier(nn.Module):
    """A perceptron whose middle layer has a weight in each row that dwarfs the others, for an input of nearly zero.

    What matters of that layer is lost when its weights share a scale with the large one.
    """

    input_shape = (16,)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(16, 64), nn.Linear(64, 64), nn.Linear(64, 8)
        with torch.no_grad():
            self.first.weight[0], self.first.bias[0] = 0, 1e-6
            self.middle.weight[:, 0] = 200

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(rows))
        answer: torch.Tensor = self.last(torch.relu(self.middle(hidden)))
        return answer


def applied(module: nn.Module, scheme: str, **settings: Any) -> Applied:
    calibration = samples_of(module.input_shape, 64)  # type: ignore[arg-type]
    order = Quantize.model_validate({"scheme": scheme, **settings})
    return quantize.apply(order, Candidate(module.eval()), bench_of(module.eval(), calibration=calibration))


def test_fidelity_is_as_computed_by_hand() -> None:
    expected = np.array([[1.0, 0.0], [3.0, 4.0]])
    given = np.array([[1.0, 2.0], [3.0, 4.0]])
    # Squares of the difference: 4 of 4 numbers; about their means 2 and 2: 1, 4, 1, 4.
    found = compare(expected, given)
    assert found.error == pytest.approx(np.sqrt(1 / 2.5))
    assert found.changed == 0.5
    assert compare(expected, np.full((2, 2), np.nan)).error == float("inf")


@pytest.mark.parametrize(("limit", "taken"), [(1.0, "abcde"), (0.5, "acde"), (0.15, "ade"), (0.04, "e"), (0.06, "de")])
def test_as_many_layers_as_fit_are_quantized_the_worst_stay(limit: float, taken: str) -> None:
    costs = {"a": 0.08, "b": 0.4, "c": 0.2, "d": 0.03, "e": 0.02}
    chosen = choose_layers(LAYERS, lambda layers: sum(costs[layer.name] for layer in layers), limit)
    assert chosen is not None
    assert "".join(layer.name for layer in chosen.layers) == taken
    assert chosen.alone == ({} if taken == "abcde" else pytest.approx(costs))


def test_no_layer_within_the_limit_is_told() -> None:
    assert choose_layers(LAYERS, lambda layers: float(len(layers)), 0.5) is None


@pytest.mark.parametrize("scheme", ["Int8Dynamic", "Int8Static", "Int4WeightOnly"])
def test_the_layer_that_suffers_stays_float_and_the_error_is_within_the_limit(scheme: str) -> None:
    limit = 0.2
    whole = applied(Outlier(), scheme)
    assert whole.details["fidelity"]["error"] > limit
    record = applied(Outlier(), scheme, exclude={"maxError": str(limit)}).details
    assert record["fidelity"]["error"] <= limit
    layers = {layer["layer"]: layer for layer in record["layers"]}
    assert layers["middle"]["dtype"] == "float32"
    assert layers["middle"]["why"] == "kept for exclude.maxError of 0.2"
    assert layers["first"]["dtype"] != "float32"
    assert layers["middle"]["sensitivity"] > 2 * max(layers["first"]["sensitivity"], layers["last"]["sensitivity"])


def test_a_limit_that_is_kept_anyway_excludes_nothing_and_costs_no_scan() -> None:
    record = applied(Outlier(), "Float16", exclude={"maxError": "10%"}).details
    assert [layer["dtype"] for layer in record["layers"]] == ["float16"] * 3
    assert not any("sensitivity" in layer for layer in record["layers"])


def test_a_limit_that_no_layer_keeps_is_refused() -> None:
    with pytest.raises(UserError, match=r"exclude.maxError: 0.00001 cannot be kept"):
        applied(Outlier(), "Int4WeightOnly", exclude={"maxError": "0.00001"})


def interval(low: float, high: float, batch_size: int = 1) -> RatioInterval:
    return RatioInterval(
        metric=Metric.LATENCY_P50,
        batch_size=batch_size,
        ratio=(low + high) / 2,
        low=low,
        high=high,
        processes=6,
        rounds=8,
    )


def row(error: float = 0.01, changed: float = 0.0, *latency: RatioInterval) -> Row:
    return Row(QuantizeScheme.INT8_STATIC, "int8", 100, Fidelity(error, changed), latency or (interval(0.5, 0.6),))


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        (row(), ""),
        (row(0.01, 0.0, interval(0.97, 1.04)), ""),
        (row(0.11), "its error of 11.00% is above maxError, 10%"),
        (row(0.01, 0.02), "2.00% of its answers changed"),
        (row(0.01, 0.0, interval(1.01, 1.02)), "it is slower at batch size 1"),
        (row(0.01, 0.0, interval(0.5, 0.6), interval(1.2, 1.3, 32)), "it is slower at batch size 32"),
        (row(0.01, 0.0, interval(0.8, 1.2)), "it is not shown to stay below 1.05 at batch size 1"),
    ],
)
def test_each_limit_is_kept_or_named(measured: Row, says: str) -> None:
    settings = AutoChoice.model_validate({"maxChanged": "1%"})
    assert objection(measured, settings).startswith(says) if says else objection(measured, settings) == ""
    assert says in objection(measured, settings)


def test_the_smallest_of_the_rows_without_objection_is_taken() -> None:
    small = replace(row(), size_bytes=50, against="it is slower")
    near, far = replace(row(0.01), size_bytes=80), replace(row(0.02), size_bytes=80)
    assert smallest([row(), small, far, near]) == near
    assert smallest([small, Row(QuantizeScheme.FLOAT8, against="needs a GPU")]) is None


def test_auto_takes_what_its_table_says_and_shows_it() -> None:
    torch.manual_seed(0)
    record = applied(digits_cnn(), "Auto", auto={**QUICK, "maxLatencyRatio": 100}, **DEFAULTS)
    assert not any(one["verdict"].startswith("it is slower") for one in record.details["table"])
    table = {one["scheme"]: one for one in record.details["table"]}
    assert list(table) == [str(scheme) for scheme in QuantizeScheme if scheme != QuantizeScheme.AUTO]
    assert ("needs a GPU" in table["Float8"]["verdict"]) is (serving_gpu() is None)
    measured = [one for one in table.values() if "bytes" in one]
    assert len(measured) == 5
    assert all(one["latencyP50"][0]["low"] <= one["latencyP50"][0]["high"] for one in measured)
    fit = [one for one in measured if one["verdict"] == "within the limits"]
    assert record.details["scheme"] == min(fit, key=lambda one: one["bytes"])["scheme"] == "Int8Static"
    assert "measured on this machine" in record.notes[-1]


def test_auto_keeps_the_graph_of_the_smallest_alone() -> None:
    module = digits_cnn().eval()
    bench = bench_of(module, calibration=samples_of((1, 8, 8), 64))
    start = Start.of(float_model_of(Candidate(module), bench.signature), bench.calibration)
    settings = Quantize.model_validate({"scheme": "Auto", "auto": {**QUICK, "maxLatencyRatio": 100}, **DEFAULTS})
    rows = measure(start, settings, bench)
    assert [row.scheme for row in rows if row.quantized is not None] == [QuantizeScheme.INT8_STATIC]


def test_auto_refuses_to_hand_the_given_model_on_unchanged() -> None:
    with pytest.raises(UserError, match=r"no number format pays on this machine: Float16: ") as error:
        applied(digits_cnn(), "Auto", auto={**QUICK, "maxLatencyRatio": "0.001"}, **DEFAULTS)
    assert error.value.reason == "NothingPays"


def test_a_pruned_model_for_which_nothing_pays_stays_float_and_is_published(claims: Claims) -> None:
    prune = {"prune": {"criterion": "Magnitude", "amount": "30%"}}
    auto = {"quantize": {"scheme": "Auto", "auto": {**QUICK, "maxLatencyRatio": "0.001"}, **DEFAULTS}}
    summary = flow.compress(claims.plan([prune, auto]), Store(claims=claims.directory), Reporter(emit=lambda _: None))
    torch.set_num_threads(1)
    record = published(claims, summary.candidate)["lineage"]["steps"][1]
    assert record["details"]["scheme"] == "Float32"
    assert len(record["details"]["table"]) == 7
    assert "the model stays float" in record["notes"][0]
    assert record["parametersAfter"] == record["parametersBefore"]


def rows_of(limit: str, monkeypatch: pytest.MonkeyPatch, *, vnni: bool) -> list[tuple[str, int | None]]:
    monkeypatch.setattr(schemes, "lacking", lambda asked: [] if vnni else list(asked))
    monkeypatch.setattr(auto, "SCHEMES", {QuantizeScheme.INT8_STATIC: SCHEMES[QuantizeScheme.INT8_STATIC]})
    module, samples = digits_cnn().eval(), samples_of((1, 8, 8), 16)
    bench = bench_of(module, calibration=samples)
    start = Start.of(float_model_of(Candidate(module), bench.signature), samples)
    limits = {"maxError": limit, "maxLatencyRatio": "100", **QUICK}
    settings = Quantize.model_validate({"scheme": "Auto", "auto": limits, **DEFAULTS})
    return [(row.against, row.weight_bits) for row in measure(start, settings, bench)]


def test_auto_tries_all_bits_of_weights_where_seven_break_a_limit_and_the_processor_has_vnni(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert rows_of("50%", monkeypatch, vnni=True) == [("", 7)]
    (_, seven), (against, eight) = rows_of("0.001%", monkeypatch, vnni=True)
    assert (seven, eight) == (7, 8)
    assert "above maxError" in against
    (_, seven), (against, eight) = rows_of("0.001%", monkeypatch, vnni=False)
    assert (seven, eight) == (7, 8)
    assert "needs a processor with VNNI" in against
