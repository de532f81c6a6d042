"""Factorized models are as small as ordered, answer nearly as before, and go on through every other technique."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.exported import export_bytes
from tests.jobimage.modules import residual
from torch import nn

from plimsoll_api.spec import Distill, Factorize, Prune, Quantize
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count, count_parameters
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import distill, factorize, moments, prune, quantize
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Applied, Candidate, Cut, Split
from plimsoll_job.techniques.table import Technique
from plimsoll_job.zoo import digits_cnn, wine_mlp


def settings(method: str = "Svd", **how: str) -> Factorize:
    return Factorize.model_validate({"method": method, **how})


def factorized(module: nn.Module, method: str = "Svd", **how: str) -> Applied:
    calibration = samples_of(module.input_shape, 50)  # type: ignore[arg-type]
    return factorize.apply(settings(method, **how), Candidate(module), bench_of(module, calibration=calibration))


@pytest.fixture(scope="module")
def cnn() -> nn.Module:
    torch.manual_seed(0)
    return digits_cnn().eval()


@pytest.mark.parametrize("method", ["Svd", "ActivationSvd"])
@pytest.mark.parametrize("amount", ["20%", "70%"])
@pytest.mark.parametrize("build", [digits_cnn, residual, wine_mlp])
def test_the_amount_of_parameters_is_gone_within_a_point(build: type[nn.Module], amount: str, method: str) -> None:
    module = build().eval()
    applied = factorized(module, method, amount=amount)
    share = 1 - count_parameters(applied.candidate.module) / count_parameters(module)
    assert share == pytest.approx(float(amount.rstrip("%")) / 100, abs=0.01)
    assert applied.details["share"] == pytest.approx(share, abs=1e-6)
    assert applied.notes == ()


@pytest.mark.parametrize("method", ["Svd", "ActivationSvd"])
def test_every_layer_keeps_the_energy_gets_smaller_and_faster_or_is_left(cnn: nn.Module, method: str) -> None:
    applied = factorized(cnn, method, keep="70%")
    before, after = (count(module, single((1, 8, 8))) for module in (cnn, applied.candidate.module))
    layers = applied.details["layers"]
    assert {layer["layer"] for layer in layers} | applied.details["left"].keys() == {
        "features.0", "features.3", "features.7", "features.10", "classifier.2", "classifier.4",
    }  # fmt: skip
    for layer in layers:
        assert layer["energy"] >= 0.7
        assert layer["parameters"][1] < layer["parameters"][0]
        assert layer["macs"][1] < layer["macs"][0]
        assert all(rank <= full for rank, full in zip(layer["ranks"], layer["fullRanks"], strict=True))
    macs = (after.macs or 0) - (before.macs or 0)
    for figure, changed in (("parameters", after.parameters - before.parameters), ("macs", macs)):
        assert sum(layer[figure][1] - layer[figure][0] for layer in layers) == changed


def test_a_layer_that_would_not_gain_is_left_and_said_so() -> None:
    module = nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)).eval()
    with torch.no_grad():  # one layer of rank 3, one of full rank
        module.get_parameter("2.weight").copy_(torch.randn(64, 3) @ torch.randn(3, 64))
        module.get_parameter("0.weight").copy_(torch.eye(64, 13))
    module.input_shape = (13,)  # type: ignore[assignment]
    applied = factorized(module, keep="99.99%")
    assert applied.candidate.changes == (Split("2", (3,)),)
    assert applied.details["layers"][0] == {
        "layer": "2", "shape": [64, 64], "fullRanks": [64], "ranks": [3], "energy": 1.0,
        "parameters": [4160, 448], "macs": [4096, 384],
    }  # fmt: skip
    assert applied.details["left"] == {
        "0": "ranks that make it smaller and faster keep 76.92% of its energy at most, 99.99% are to be kept",
        "4": "it would not get smaller and faster at any rank",
    }
    assert torch.equal(applied.candidate.module.get_parameter("0.weight"), module.get_parameter("0.weight"))
    inputs = torch.randn(5, 13)
    assert torch.allclose(applied.candidate.module(inputs), module(inputs), atol=1e-4)


def test_more_energy_gives_nearer_answers(cnn: nn.Module) -> None:
    inputs = torch.from_numpy(samples_of((1, 8, 8), 20).inputs["inputs"])
    with torch.no_grad():
        errors = [
            float((factorized(cnn, "ActivationSvd", keep=keep).candidate.module(inputs) - cnn(inputs)).norm())
            for keep in ("70%", "98%")
        ]
    assert errors[1] < 0.7 * errors[0]


def test_passes_over_a_few_layers_each_give_what_one_over_all_gives(
    cnn: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = factorized(cnn, "ActivationSvd", amount="50%").candidate
    monkeypatch.setattr(moments, "MOST_BYTES", 1)
    apart = factorized(cnn, "ActivationSvd", amount="50%").candidate
    assert apart.fingerprint() == together.fingerprint()


def test_the_given_module_stays_as_it_was_and_the_same_order_gives_the_same_factors(cnn: nn.Module) -> None:
    before = Candidate(cnn).fingerprint()
    prints = [factorized(cnn, "ActivationSvd", amount="50%").candidate.fingerprint() for _ in range(2)]
    assert prints[0] == prints[1]
    assert Candidate(cnn).fingerprint() == before


def test_the_export_answers_as_the_module(cnn: nn.Module) -> None:
    module = factorized(cnn, "ActivationSvd", amount="60%").candidate.module
    graph = export_bytes(module, single((1, 8, 8)))
    assert len(graph) < 0.45 * 4 * 326_346
    inputs = samples_of((1, 8, 8), 7, seed=1).inputs["inputs"]
    (answers,) = ort.InferenceSession(graph).run(None, {"inputs": inputs})
    assert np.allclose(answers, module(torch.from_numpy(inputs)).detach().numpy(), atol=1e-5)


def test_factorized_models_are_pruned_trained_and_quantized() -> None:
    torch.manual_seed(0)
    module = residual().eval()
    samples = samples_of((3, 8, 8), 40, classes=5)
    bench = bench_of(module, train=samples, calibration=samples)
    steps: list[tuple[Technique, Any]] = [
        (prune.apply, Prune.model_validate({"criterion": "Magnitude", "amount": "20%"})),
        (factorize.apply, settings("ActivationSvd", amount="30%")),
        (distill.apply, Distill.model_validate({"epochs": 1})),
        (prune.apply, Prune.model_validate({"criterion": "Activation", "amount": "30%"})),
        (prune.apply, Prune.model_validate({"criterion": "Magnitude", "granularity": "Unstructured", "amount": "30%"})),
    ]
    made = Candidate(module)
    for technique, ordered in steps:
        made = technique(ordered, made, bench).candidate
    kinds = [type(change) for change in made.changes]
    first, last = kinds.index(Split), len(kinds) - kinds[::-1].index(Split)
    assert set(kinds[:first]) == {Cut} == set(kinds[last:])
    replayed = replay(residual().eval(), single((3, 8, 8)), made.changes)
    replayed.load_state_dict(made.module.state_dict(), strict=True)
    inputs = torch.from_numpy(samples.inputs["inputs"])
    assert torch.equal(replayed(inputs), made.module(inputs))
    int8 = quantize.apply(Quantize.model_validate({"scheme": "Int8Static"}), made, bench)
    assert int8.details["weightTypes"].keys() == {"int8"}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"amount": "99.9%"}, r"spec.steps\[0\].prune.amount: 99.9% cannot be reached; 9\d.\d% can go at the lowest"),
        ({"keep": "99.99%"}, r"keep: no layer that keeps 99.99% of its energy gets smaller .*; \d+.\d\d% is the most"),
    ],
)
def test_what_cannot_be_is_refused(how: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        factorized(wine_mlp().eval(), **how)


class Recurrent(nn.Module):
    """An LSTM that holds nearly all weights, and a layer behind it."""

    input_shape = (4, 8)

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 16)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.head(self.lstm(inputs)[0][:, -1])
        return answers


def test_a_refusal_names_the_layers_that_hold_most_and_cannot_be_factorized() -> None:
    with pytest.raises(
        UserError, match=r"what it leaves: lstm \(LSTM, 91% of the bytes\): torch has no recurrent layer"
    ):
        factorized(Recurrent().eval(), amount="30%")


def test_an_amount_between_two_ranks_is_said() -> None:
    applied = factorized(wine_mlp().eval(), amount="0.1%")
    assert applied.notes[0].startswith("0.1% was ordered; ") == (applied.details["share"] > 0.011)
    assert applied.details["share"] > 0


def test_a_model_of_small_layers_is_refused() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval()
    module.input_shape = (2,)  # type: ignore[assignment]
    with pytest.raises(UserError, match="no layer of the model would get smaller and faster") as error:
        factorized(module, keep="50%")
    assert error.value.reason == "NotFactorizable"


def test_zeros_would_be_lost() -> None:
    module = wine_mlp().eval()
    candidate = Candidate(module, sparse=frozenset({"layers.1.weight"}))
    with pytest.raises(UserError, match="zeros of an unstructured prune would be lost"):
        factorize.apply(settings(keep="90%"), candidate, bench_of(module))


def test_activation_aware_factors_need_calibration_data() -> None:
    module = wine_mlp().eval()
    with pytest.raises(UserError, match=r"spec.data.calibration: spec.steps\[0\].prune needs calibration data"):
        factorize.apply(settings("ActivationSvd", keep="90%"), Candidate(module), bench_of(module))
