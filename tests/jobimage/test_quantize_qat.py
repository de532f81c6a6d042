"""Int8QAT trains the very graph that is served, and gets back what rounding took from a model."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from sklearn.datasets import load_digits
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.haswell import Haswell
from tests.jobimage.modules import Tagger
from tests.jobimage.test_quantize import Build, graph_of, setting
from tests.jobimage.texts import TEXT, sentences
from torch import nn

from plimsoll_api.spec import Quantize, QuantizeScheme, Task
from plimsoll_job.checkpoints import Checkpoints
from plimsoll_job.errors import UserError
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import single
from plimsoll_job.sessions import open_session, serving_gpu
from plimsoll_job.techniques import quantize
from plimsoll_job.techniques.distill.training import Training
from plimsoll_job.techniques.quantize import auto, int8_qat
from plimsoll_job.techniques.quantize.fidelity import compare
from plimsoll_job.techniques.quantize.float_model import float_model_of
from plimsoll_job.techniques.quantize.schemes import SCHEMES
from plimsoll_job.techniques.quantize.start import Start
from plimsoll_job.techniques.shape import Applied, Bench, Candidate
from plimsoll_job.zoo import wine_mlp

TRAINED, HELD_OUT = slice(0, 1200), slice(1200, None)


def applied(module: nn.Module, bench: Bench, sparse: frozenset[str] = frozenset(), **settings: Any) -> Applied:
    order = Quantize.model_validate({"scheme": "Int8QAT", **settings})
    return quantize.apply(order, Candidate(module, sparse=sparse), bench)


@torch.no_grad()
def uneven(module: nn.Module, layer: str, reader: str) -> nn.Module:
    """Make four channels large, and let their reader take that away: training has something to get back then."""
    for parameter in module.get_submodule(layer).parameters():
        parameter[:4] *= 30
    module.get_submodule(reader).weight[:, :4] /= 30  # type: ignore[index, operator]
    return module


def uneven_wine() -> nn.Module:
    return uneven(wine_mlp(), "layers.1", "layers.3")


def wine(checkpoints: Checkpoints | None = None, build: Build = uneven_wine, **settings: Any) -> Applied:
    module, samples, bench = setting(build)
    bench = replace(bench, train=samples, checkpoints=checkpoints)
    return applied(module, bench, **({"training": {"epochs": 3, "batchSize": 16}} | settings))


class Separable(nn.Module):
    """A small MobileNet for the digits of scikit-learn, four channels of which are made large, as they are in those.

    What makes them large is taken away again where they are read: the answers of the float model stay as they were.
    """

    input_shape = (1, 8, 8)

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(
            self._block(width, width), self._block(width, 2 * width), nn.MaxPool2d(2), self._block(2 * width, 2 * width)
        )
        self.head = nn.Linear(2 * width, 10)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.head(self.blocks(self.stem(images)).mean((2, 3)))
        return answers

    @torch.no_grad()
    def enlarge(self, channels: int, times: float) -> None:
        first, second = self.blocks[0], self.blocks[1]
        for norm, reader in ((self.stem[1], first[0]), (first[4], second[0])):  # type: ignore[index]
            norm.weight[:channels] *= times  # type: ignore[index, operator]
            norm.bias[:channels] *= times  # type: ignore[index, operator]
            reader.weight[:channels] /= times


def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)[order], labels[order]


def trained_separable(epochs: int = 12) -> nn.Module:
    torch.manual_seed(0)
    images, labels = (torch.from_numpy(one[TRAINED]) for one in digits())
    module = Separable()
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * 19)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(1200), 64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(images[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    module.enlarge(4, 100)
    return module.eval()


@pytest.mark.slow
def test_training_gets_back_what_static_quantization_loses() -> None:
    images, labels = digits()

    def unlabelled(chosen: slice) -> Samples:
        return replace(samples_of((1,), 1), inputs={"inputs": images[chosen]}, labels=None)

    def accuracy(graph: bytes | None) -> float:
        assert graph is not None
        logits = open_session(graph, 1).run(None, {"inputs": images[HELD_OUT]})[0]
        return float((logits.argmax(1) == labels[HELD_OUT]).mean())

    module = trained_separable()
    with torch.no_grad():
        floats = float((module(torch.from_numpy(images[HELD_OUT])).argmax(1).numpy() == labels[HELD_OUT]).mean())
    bench = bench_of(module, train=unlabelled(TRAINED), calibration=unlabelled(slice(0, 256)))
    static = quantize.apply(Quantize.model_validate({"scheme": "Int8Static"}), Candidate(module), bench)
    trained = applied(module, bench, training={"epochs": 6, "learningRate": "0.001"})
    before, after = accuracy(graph_of(static)), accuracy(graph_of(trained))
    assert floats > 0.97
    assert before < floats - 0.1
    assert (after - before) / (floats - before) > 0.9
    details, training = trained.details, trained.details["training"]
    assert training["fidelityBefore"] == static.details["fidelity"] or serving_gpu()
    assert details["fidelity"]["error"] < 0.5 * training["fidelityBefore"]["error"]
    assert training["servedToTrained"]["error"] < 1e-3
    assert training["loss"][-1] < 0.5 * training["loss"][0]
    assert details["bytes"] == pytest.approx(static.details["bytes"], rel=0.02)
    layers = {layer["layer"]: layer for layer in details["layers"]}
    assert {layer["dtype"] for layer in layers.values()} == {"int8"}
    large = layers["blocks.0.0"]
    assert large["inputRange"][1] < 0.8 * large["calibratedRange"][1]


def test_the_same_plan_gives_the_same_bytes_and_the_record_tells_of_the_training() -> None:
    one, other = wine(), wine()
    assert graph_of(one) == graph_of(other)
    assert one.details == other.details
    training = one.details["training"]
    assert (training["epochs"], training["samples"], len(training["loss"])) == (3, 64, 3)
    assert training["servedToTrained"]["error"] < 1e-6
    assert {"inputRange", "calibratedRange"} <= one.details["layers"][0].keys()


def test_a_killed_training_goes_on_to_the_same_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed, train_epoch, trained = wine(), Training._train_epoch, 0

    def dying(self: Training) -> float:
        nonlocal trained
        trained += 1
        if trained == 3:
            raise KeyboardInterrupt
        return train_epoch(self)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_train_epoch", dying)
        with pytest.raises(KeyboardInterrupt):
            wine(Checkpoints(tmp_path, seconds_between=0))
    trained = 5
    monkeypatch.setattr(Training, "_train_epoch", dying)
    again = wine(Checkpoints(tmp_path, seconds_between=0))
    assert trained == 6
    assert graph_of(again) == graph_of(undisturbed)
    assert again.details == undisturbed.details


def test_zeros_of_a_pruned_model_stay_zero() -> None:
    module, samples, bench = setting(uneven_wine)
    with torch.no_grad():
        module.get_submodule("layers.3").weight[:32] = 0  # type: ignore[operator]
    made = applied(
        module, replace(bench, train=samples), frozenset({"layers.3.weight"}), training={"epochs": 3, "batchSize": 16}
    )
    assert made.details["scheme"] == "Int8QAT"
    assert made.candidate.zero_weights >= 32 * 64


@pytest.mark.slow
def test_what_was_trained_is_what_a_processor_without_vnni_serves(haswell: Haswell) -> None:
    made, (module, samples, _) = wine(), setting(uneven_wine)
    with torch.no_grad():
        floats = module(torch.from_numpy(samples.inputs["inputs"])).double().numpy()
    told = made.details["training"]
    served = haswell(graph_of(made), samples.inputs)
    assert made.details["weightBits"] == 7
    assert told["fidelityAfter"]["error"] < told["fidelityBefore"]["error"]
    assert compare(floats, served).error == pytest.approx(told["fidelityAfter"]["error"], rel=0.01)


def test_biases_of_a_pruned_model_are_trained() -> None:
    module, samples, _ = setting(wine_mlp)
    module = nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    with torch.no_grad():
        for layer in (module[0], module[2]):
            layer.bias.zero_()  # type: ignore[operator]
    uneven(module, "0", "2")
    bench = bench_of(module, train=samples, calibration=samples, signature=single((13,)))
    # A step of the integers of a bias is three times the default rate.
    made = applied(
        module, bench, frozenset({"0.weight"}), training={"epochs": 3, "batchSize": 16, "learningRate": "0.001"}
    )
    assert made.details["scheme"] == "Int8QAT"
    biases = [one for one in onnx.load_from_string(graph_of(made)).graph.initializer if list(one.dims) == [3]]
    assert any(numpy_helper.to_array(one).any() for one in biases if one.data_type == onnx.TensorProto.INT32)


def test_layers_stay_float_by_name_and_by_sensitivity() -> None:
    named = {layer["layer"]: layer for layer in wine(exclude={"layers": ["layers.3"]}).details["layers"]}
    assert (named["layers.3"]["dtype"], named["layers.3"]["why"]) == ("float32", "exclude.layers names layers.3")
    assert named["layers.1"]["dtype"] == "int8"
    whole = wine()
    limit = 0.97 * whole.details["fidelity"]["error"]
    record = wine(exclude={"maxError": f"{limit:.6f}"}).details
    assert record["fidelity"]["error"] <= limit
    assert record["weightTypes"]["float32"] > 0


def test_what_cannot_be_trained_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module, samples, bench = setting(wine_mlp)
    with pytest.raises(UserError, match=r"spec.data.train: .* needs training data"):
        applied(module, bench)
    with pytest.raises(UserError, match=r"spec.steps\[0\].prune.training.learningRate: training diverged"):
        wine(training={"epochs": 5, "learningRate": "1"})
    with monkeypatch.context() as patched:
        patched.setattr(int8_qat, "_answers", lambda *_: np.full((64, 3), np.nan))
        with pytest.raises(UserError, match=r"learningRate: training diverged, answers .* no finite numbers"):
            wine(training={"epochs": 1})

    class Strange(nn.Module):
        input_shape = (13,)

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(13, 64), nn.SELU(), nn.Linear(64, 3))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.layers(rows)
            return answer

    module = Strange().eval()
    with pytest.raises(UserError, match="cannot train through Selu; use Int8Static") as error:
        applied(module, bench_of(module, train=samples, calibration=samples_of((13,), 32)))
    assert error.value.reason == "NotTrainable"


@pytest.mark.parametrize("exclude", [{}, {"exclude": {"layers": ["layers.3"]}}])
def test_a_training_that_brings_nothing_leaves_the_model_of_static_quantization(exclude: dict[str, Any]) -> None:
    module, _, bench = setting(wine_mlp)
    static = quantize.apply(Quantize.model_validate({"scheme": "Int8Static", **exclude}), Candidate(module), bench)
    worse = wine(build=wine_mlp, training={"epochs": 1, "learningRate": "0.3"}, **exclude)
    training = worse.details["training"]
    assert training["fidelityAfter"]["error"] > training["fidelityBefore"]["error"]
    assert training["fidelityBefore"] == static.details["fidelity"] or serving_gpu()
    assert graph_of(worse) == graph_of(static)
    assert worse.candidate.zero_weights == static.candidate.zero_weights
    assert worse.details == {**static.details, "training": training}
    assert worse.details["scheme"] == "Int8Static"
    (note,) = (note for note in worse.notes if note not in static.notes)
    assert re.match(r"The training brought the answers no nearer to float, and the model is that of Int8Static", note)


def test_a_training_that_helps_is_kept() -> None:
    made = wine()
    training = made.details["training"]
    assert made.details["scheme"] == "Int8QAT"
    assert made.details["fidelity"] == training["fidelityAfter"] or serving_gpu()
    assert training["fidelityAfter"]["error"] < training["fidelityBefore"]["error"]
    assert not any("no nearer" in note for note in made.notes)


def test_an_answer_a_token_is_trained_too() -> None:
    torch.manual_seed(0)
    module, samples = Tagger().eval(), sentences()
    module.words = nn.Embedding(2_000, 32)
    bench = replace(
        bench_of(module, train=samples, calibration=samples, signature=TEXT), task=Task.TOKEN_CLASSIFICATION
    )
    made = applied(module, bench, training={"epochs": 3})
    assert made.details["training"]["servedToTrained"]["error"] < 0.01
    assert made.details["fidelity"]["error"] < 0.1


def test_auto_does_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    module, samples, bench = setting(wine_mlp)
    monkeypatch.setattr(auto, "SCHEMES", {QuantizeScheme.INT8_QAT: SCHEMES[QuantizeScheme.INT8_QAT]})
    start = Start.of(float_model_of(Candidate(module), bench.signature), samples)
    (row,) = auto.measure(start, Quantize.model_validate({"scheme": "Auto"}), bench)
    assert row.against == "it is trained, and Auto trains nothing"


def test_the_graph_is_that_of_static_quantization() -> None:
    module, _, bench = setting(uneven_wine)
    static = quantize.apply(Quantize.model_validate({"scheme": "Int8Static"}), Candidate(module), bench)
    graphs = [onnx.load_from_string(graph_of(one)).graph for one in (static, wine())]
    assert [node.op_type for node in graphs[0].node] == [node.op_type for node in graphs[1].node]
