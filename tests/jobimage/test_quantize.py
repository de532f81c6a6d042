"""Every scheme ends in a graph that ONNX Runtime runs, is smaller, answers alike, and tells what each layer got."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.haswell import Haswell, Serve, here
from tests.jobimage.modules import residual
from tests.jobimage.texts import TEXT, VOCABULARY, sentences, tiny_bert
from torch import nn

from plimsoll_api.artifact import ProcessorFeature
from plimsoll_api.spec import Quantize, QuantizeScheme
from plimsoll_job.errors import UserError
from plimsoll_job.export.integers import required_features
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.load.data import Samples
from plimsoll_job.processor import lacking
from plimsoll_job.techniques import quantize
from plimsoll_job.techniques.quantize import schemes
from plimsoll_job.techniques.quantize.schemes import SCHEMES, Scheme
from plimsoll_job.techniques.shape import Applied, Bench, Candidate
from plimsoll_job.zoo import digits_cnn, wine_mlp

#: The schemes that make one graph on any machine, without training data.
RUNNING = [
    scheme
    for scheme in QuantizeScheme
    if scheme not in (QuantizeScheme.FLOAT8, QuantizeScheme.AUTO, QuantizeScheme.INT8_QAT)
]

Build = Callable[[], nn.Module]
EMBEDDING = "words"
LINEAR_OF_BERT = [
    *(f"layers.{block}.{name}" for block in range(2) for name in ("query", "key", "value", "wide", "narrow")),
    "head",
]


def seeded(build: Build) -> nn.Module:
    torch.manual_seed(0)
    return build().eval()


def setting(build: Build) -> tuple[nn.Module, Samples, Bench]:
    module = seeded(build)
    if build is tiny_bert:
        samples = sentences()
        module.input_shape = (1,)  # type: ignore[assignment]
        return module, samples, replace(bench_of(module, calibration=samples), signature=TEXT)
    samples = samples_of(module.input_shape, 64)  # type: ignore[arg-type]
    return module, samples, bench_of(module, calibration=samples)


def quantized(build: Build, scheme: str, **settings: Any) -> Applied:
    module, _, bench = setting(build)
    return quantize.apply(Quantize.model_validate({"scheme": scheme, **settings}), Candidate(module), bench)


def graph_of(applied: Applied) -> bytes:
    assert applied.candidate.graph is not None
    return applied.candidate.graph.path.read_bytes()


def types_of(applied: Applied) -> dict[str, str]:
    return {layer["layer"]: layer["dtype"] for layer in applied.details["layers"]}


def relative_error(build: Build, graph: bytes, serve: Serve = here) -> float:
    module, samples, _ = setting(build)
    with torch.no_grad():
        expected = module(*(torch.from_numpy(array) for array in samples.inputs.values())).numpy()
    return float(np.sqrt(((serve(graph, samples.inputs) - expected) ** 2).mean()) / expected.std())


@pytest.mark.parametrize(
    ("build", "scheme", "size", "error"),
    [
        (digits_cnn, "Float16", 0.51, 0.002),
        (digits_cnn, "BFloat16", 0.51, 0.01),
        (digits_cnn, "Int8Static", 0.27, 0.1),
        (digits_cnn, "Int8Dynamic", 0.86, 0.05),
        (digits_cnn, "Int4WeightOnly", 0.84, 0.2),
        (residual, "Int8Static", 0.3, 0.1),
        (residual, "Float16", 0.52, 0.002),
        (wine_mlp, "Int8Dynamic", 0.4, 0.05),
        (wine_mlp, "Int4WeightOnly", 0.3, 0.25),
        (tiny_bert, "Float16", 0.53, 0.002),
        (tiny_bert, "BFloat16", 0.53, 0.01),
        (tiny_bert, "Int8Dynamic", 0.35, 0.05),
        (tiny_bert, "Int8Static", 0.35, 0.1),
        (tiny_bert, "Int4WeightOnly", 0.55, 0.3),
    ],
)
def test_the_graph_runs_at_every_batch_is_smaller_and_answers_alike(
    build: Build, scheme: str, size: float, error: float
) -> None:
    applied = quantized(build, scheme)
    graph = graph_of(applied)
    assert len(graph) == applied.details["bytes"] <= size * applied.details["floatBytes"]
    assert relative_error(build, graph) < error
    _, samples, _ = setting(build)
    one = here(graph, samples.rows(slice(0, 1)))
    assert one.shape[0] == 1
    if "Dynamic" not in scheme:
        assert np.allclose(one, here(graph, samples.inputs)[:1], atol=1e-4)


@pytest.mark.parametrize(
    ("build", "scheme", "error"),
    [
        (wine_mlp, "Int8Static", 0.03),
        (residual, "Int8Static", 0.02),
        (tiny_bert, "Int8Static", 0.04),
        (digits_cnn, "Int8Static", 0.01),
        (wine_mlp, "Int8Dynamic", 0.03),
        (tiny_bert, "Int8Dynamic", 0.04),
    ],
)
def test_int8_is_as_near_on_a_processor_without_vnni_as_it_was_told(
    build: Build, scheme: str, error: float, serve: Serve
) -> None:
    applied = quantized(build, scheme)
    assert applied.details["weightBits"] == 7
    assert relative_error(build, graph_of(applied), serve) < error
    _, samples, _ = setting(build)
    native, served = (one(graph_of(applied), samples.inputs) for one in (here, serve))
    assert np.abs(served - native).max() < 0.01 * np.abs(native).max()
    assert required_features(LeanModel(onnx.load_from_string(graph_of(applied)))) == []


needs_vnni = pytest.mark.skipif(bool(lacking([ProcessorFeature.VNNI])), reason="this processor has no VNNI")


@pytest.mark.slow
@needs_vnni
@pytest.mark.parametrize("build", [wine_mlp, residual, tiny_bert])
def test_all_bits_of_weights_are_nearer_and_ask_for_vnni(build: Build, haswell: Haswell) -> None:
    seven, eight = quantized(build, "Int8Static"), quantized(build, "Int8Static", weightBits=8)
    assert eight.details["weightBits"] == 8
    assert relative_error(build, graph_of(eight)) < relative_error(build, graph_of(seven))
    assert required_features(LeanModel(onnx.load_from_string(graph_of(eight)))) == [ProcessorFeature.VNNI]
    # Else nothing would have to be asked for.
    assert relative_error(build, graph_of(eight), haswell) > 5 * relative_error(build, graph_of(eight))


def test_all_bits_of_weights_are_refused_before_any_work_where_sums_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes, "lacking", list)
    for scheme in ("Int8Static", "Int8Dynamic", "Int8QAT"):
        settings = Quantize.model_validate({"scheme": scheme, "weightBits": 8})
        with pytest.raises(
            UserError, match=r"spec.x.scheme: .* with weightBits 8 needs a processor with VNNI"
        ) as error:
            quantize.check(settings, [], "spec.x")
        assert error.value.reason == "NotOnThisMachine"
        quantize.check(settings.model_copy(update={"weight_bits": 7}), [], "spec.x")


def test_embeddings_are_looked_up_and_keep_all_bits() -> None:
    for scheme in ("Int8Static", "Int8Dynamic"):
        model = onnx.load_from_string(graph_of(quantized(tiny_bert, scheme)))
        spans = {
            tuple(one.dims): np.ptp(numpy_helper.to_array(one).astype(np.int32))
            for one in model.graph.initializer
            if one.data_type in (TensorProto.INT8, TensorProto.UINT8) and len(one.dims) > 1
        }
        assert spans.pop((VOCABULARY, 64)) == 255
        assert max(spans.values()) == 128


@pytest.mark.parametrize("scheme", RUNNING)
def test_the_same_model_gives_the_same_bytes(scheme: str) -> None:
    assert graph_of(quantized(wine_mlp, scheme)) == graph_of(quantized(wine_mlp, scheme))


def test_layers_are_told_by_their_modules_with_their_types_and_the_reason() -> None:
    applied = quantized(digits_cnn, "Int8Dynamic")
    names = ["features.0", "features.3", "features.7", "features.10", "classifier.2", "classifier.4"]
    assert types_of(applied) == dict.fromkeys(names[:4], "float32") | dict.fromkeys(names[4:], "int8")
    assert applied.details["layers"][0]["why"] == "Int8Dynamic leaves Conv in float: ONNX Runtime is slow at it in int8"
    assert applied.details["layers"][-1]["why"] == "as ordered"
    assert applied.details["weightTypes"] == {"float32": 4, "int8": 2}
    assert "4 of 6 layers stay float" in applied.notes[0]


def test_the_layers_of_a_transformer_are_quantized_embeddings_too() -> None:
    assert types_of(quantized(tiny_bert, "Int8Dynamic")) == {EMBEDDING: "uint8"} | dict.fromkeys(LINEAR_OF_BERT, "int8")
    assert types_of(quantized(tiny_bert, "Int8Static")) == {EMBEDDING: "uint8"} | dict.fromkeys(LINEAR_OF_BERT, "int8")
    four = quantized(tiny_bert, "Int4WeightOnly")
    assert types_of(four) == {EMBEDDING: "float32"} | dict.fromkeys(LINEAR_OF_BERT, "int4")


@pytest.mark.parametrize(
    ("build", "kernel"),
    [(digits_cnn, "QLinearConv"), (residual, "QLinearConv"), (wine_mlp, "QGemm"), (tiny_bert, "MatMulIntegerToFloat")],
)
def test_every_layer_in_static_int8_runs_in_an_integer_kernel(build: Build, kernel: str, tmp_path: Path) -> None:
    graph = graph_of(quantized(build, "Int8Static"))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    # Else a layer computes in float, and its weight is dequantized in each run: slower than the float model.
    assert found[kernel] > 0
    assert found["Conv"] == found["FusedConv"] == found["Gemm"] == found["FusedGemm"] == 0
    assert found["MatMul"] + found["FusedMatMul"] == (4 if build is tiny_bert else 0), found


def test_static_int8_leaves_nothing_of_a_cnn_in_float() -> None:
    graph = graph_of(quantized(digits_cnn, "Int8Static"))
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model)
    kinds = {constant.data_type for constant in model.graph.initializer if len(constant.dims) > 1}
    assert kinds == {TensorProto.INT8}


@pytest.mark.parametrize("scheme", RUNNING)
def test_named_layers_stay_float_and_what_lies_within_a_named_module_too(scheme: str) -> None:
    applied = quantized(tiny_bert, scheme, exclude={"layers": ["head", "layers.1"]})
    kept = {name: dtype for name, dtype in types_of(applied).items() if dtype == "float32"}
    expected = {"head", *(name for name in LINEAR_OF_BERT if name.startswith("layers.1"))}
    assert set(kept) - {EMBEDDING} == expected
    whys = {layer["layer"]: layer["why"] for layer in applied.details["layers"]}
    assert whys["head"] == "exclude.layers names head"
    assert whys["layers.1.key"] == "exclude.layers names layers.1"
    assert applied.details["bytes"] > quantized(tiny_bert, scheme).details["bytes"]


def test_a_name_without_weights_is_noted_and_a_name_of_layers_is_not() -> None:
    notes = quantized(wine_mlp, "Float16", exclude={"layers": ["layers.2", "layers.3"]}).notes
    assert notes == (
        "exclude.layers names layers.2, which has no weights that could be quantized: it changes nothing.",
    )


def test_excluding_everything_is_refused() -> None:
    with pytest.raises(UserError, match=r"no layer of the model .* exclude.layers names layers") as error:
        quantized(wine_mlp, "Float16", exclude={"layers": ["layers"]})
    assert error.value.reason == "NotQuantizable"


def test_a_name_that_no_module_has_is_refused_before_any_work() -> None:
    settings = Quantize.model_validate({"scheme": "Float16", "exclude": {"layers": ["layer.1"]}})
    with pytest.raises(UserError, match=r"spec.x.exclude.layers\[0\]: .* 'layer.1'; did you mean layers.1\?"):
        quantize.check(settings, [name for name, _ in wine_mlp().named_modules()], "spec.x")


def test_float8_is_refused_before_any_work_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes, "serving_gpu", lambda: None)
    with pytest.raises(UserError, match=r"spec.x.scheme: Float8 needs a GPU") as error:
        quantize.check(Quantize.model_validate({"scheme": "Float8"}), [], "spec.x")
    assert error.value.reason == "NotOnThisMachine"


@pytest.mark.parametrize("build", [digits_cnn, residual, tiny_bert])
def test_the_graph_of_float8_answers_alike(build: Build) -> None:
    applied = quantized(build, "Float8")
    assert set(types_of(applied).values()) == {"float8"}
    assert relative_error(build, graph_of(applied)) < 0.1


@pytest.mark.parametrize("build", [digits_cnn, residual, wine_mlp, tiny_bert])
def test_what_computes_in_float16_takes_and_gives_what_the_model_did(build: Build) -> None:
    applied = quantized(build, "Float16", compute="Float16")
    model = onnx.load_from_string(graph_of(applied))
    onnx.checker.check_model(model, full_check=True)
    assert set(types_of(applied).values()) == {"float16"}
    assert applied.details["computes"].startswith("float16")
    assert [value.type.tensor_type.elem_type for value in model.graph.output] == [TensorProto.FLOAT]
    assert TensorProto.FLOAT not in {one.data_type for one in model.graph.initializer if one.dims}
    assert graph_of(applied) == graph_of(quantized(build, "Float16", compute="Float16"))
    assert relative_error(build, graph_of(applied)) < 0.005


@pytest.mark.parametrize(
    ("scheme", "beyond"), [({"scheme": "Float16", "compute": "Float16"}, "float32"), ({"scheme": "Float8"}, "float8")]
)
def test_excluded_layers_and_those_beyond_half_precision_compute_in_float(scheme: dict[str, Any], beyond: str) -> None:
    module, samples, bench = setting(wine_mlp)
    with torch.no_grad():
        # What the layer of the large weight answers with still fits.
        module.get_submodule("layers.1").weight[0] *= 0.01  # type: ignore[operator, index]
        module.get_submodule("layers.3").weight[0, 0] = 1e5  # type: ignore[operator]
    settings = Quantize.model_validate({**scheme, "exclude": {"layers": ["layers.5"]}})
    applied = quantize.apply(settings, Candidate(module), bench)
    types = types_of(applied)
    assert types.pop("layers.1") == settings.scheme.lower()
    assert types == {"layers.3": beyond, "layers.5": "float32"}
    graph = onnx.load_from_string(graph_of(applied)).graph
    kinds = {tuple(one.dims): one.data_type for one in graph.initializer}
    excluded = tuple(module.get_submodule("layers.5").get_parameter("weight").shape)
    assert TensorProto.FLOAT in (kinds.get(excluded), kinds.get(excluded[::-1]))
    given = here(graph_of(applied), samples.inputs)
    assert np.isfinite(given).all()
    assert applied.details["fidelity"]["error"] < 0.1


class Stacked(nn.Module):
    """A product of each of four vectors with a matrix of its own, and one that all share."""

    input_shape = (4, 64)

    def __init__(self) -> None:
        super().__init__()
        self.matrices, self.head = nn.Parameter(torch.randn(4, 64, 32)), nn.Linear(32, 200)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.head((vectors.unsqueeze(2) @ self.matrices).squeeze(2))
        return answers.flatten(1)


@pytest.mark.parametrize("scheme", ["Int8Static", "Int8Dynamic", "Int4WeightOnly"])
def test_stacked_matrices_stay_float_where_integers_are_multiplied(scheme: str) -> None:
    applied = quantized(Stacked, scheme)
    assert Counter(types_of(applied).values()) == {"float32": 1, {"Int4WeightOnly": "int4"}.get(scheme, "int8"): 1}
    assert any("no int8 product of stacked matrices" in layer["why"] for layer in applied.details["layers"])
    assert relative_error(Stacked, graph_of(applied)) < 0.2


def test_numbers_beyond_half_precision_stay_float() -> None:
    module, _, bench = setting(wine_mlp)
    with torch.no_grad():
        module.get_submodule("layers.3").weight[0, 0] = 1e6  # type: ignore[operator]
    applied = quantize.apply(Quantize.model_validate({"scheme": "Float16"}), Candidate(module), bench)
    assert types_of(applied) == {"layers.1": "float16", "layers.3": "float32", "layers.5": "float16"}
    assert "1 of 3 layers stay float: layers.3" in applied.notes[0]


def test_weights_that_a_format_rounds_to_zero_are_counted() -> None:
    module, _, bench = setting(wine_mlp)
    with torch.no_grad():
        module.get_submodule("layers.3").weight[:32] = 0  # type: ignore[operator]
    for scheme, most in (("Float16", 0), ("Int8Static", 40), ("Int8Dynamic", 40), ("Int4WeightOnly", 1500)):
        applied = quantize.apply(Quantize.model_validate({"scheme": scheme}), Candidate(module), bench)
        assert 32 * 64 <= applied.candidate.zero_weights <= 32 * 64 + most, scheme


def test_a_model_too_small_to_gain_is_refused() -> None:
    def tiny() -> nn.Module:
        module = nn.Sequential(nn.Linear(2, 2))
        module.input_shape = (2,)  # type: ignore[assignment]
        return module

    with pytest.raises(UserError, match="too small for quantization to pay") as error:
        quantized(tiny, "Int8Static")
    assert error.value.reason == "NotSmaller"


def test_a_scheme_that_takes_no_layer_of_the_model_is_refused() -> None:
    def convolutional() -> nn.Module:
        module = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 4, 3), nn.Flatten())
        module.input_shape = (3, 8, 8)  # type: ignore[assignment]
        return module

    with pytest.raises(UserError, match=r"no layer .* Int4WeightOnly leaves Conv in float") as error:
        quantized(convolutional, "Int4WeightOnly")
    assert error.value.reason == "NotQuantizable"


def test_layers_that_did_not_change_are_reported_and_none_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = Scheme(lambda model, layers, samples: model.lean(), SCHEMES[QuantizeScheme.FLOAT16].operators, "float32")
    monkeypatch.setitem(SCHEMES, QuantizeScheme.FLOAT16, idle)
    with pytest.raises(UserError, match="every layer kept float weights"):
        quantized(wine_mlp, "Float16")


def test_calibration_data_is_needed() -> None:
    module = wine_mlp().eval()
    with pytest.raises(UserError, match=r"spec.data.calibration: "):
        quantize.apply(Quantize.model_validate({"scheme": "Int8Static"}), Candidate(module), bench_of(module))
