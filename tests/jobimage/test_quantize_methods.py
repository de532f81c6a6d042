"""Biases take back what rounding shifts, and layers that stay float keep what they had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.haswell import Serve, here
from tests.jobimage.test_padding import other_padding
from tests.jobimage.test_quantize import Build, graph_of, quantized, relative_error, setting
from tests.jobimage.test_quantize_choice import Outlier
from tests.jobimage.test_quantize_choice import applied as applied_to
from tests.jobimage.texts import TEXT, sentences, tiny_bert
from torch import nn

from plimsoll_api.spec import Exclusion, Quantize, QuantizeScheme
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import quantize
from plimsoll_job.techniques.quantize.float16_compute import to_float16_compute
from plimsoll_job.techniques.quantize.float_model import float_model_of
from plimsoll_job.techniques.quantize.quantized import able_layers
from plimsoll_job.techniques.quantize.refine.biases import mean_losses
from plimsoll_job.techniques.quantize.schemes import scheme_of
from plimsoll_job.techniques.shape import Candidate
from plimsoll_job.zoo import digits_cnn, wine_mlp

SEEDS = (0, 1, 2)
ALL = {"ranges": "Mse", "equalization": "SmoothQuant", "rounding": "Gptq", "bias": "Correct"}


def positive(shape: tuple[int, ...], count: int = 64, seed: int = 0) -> Samples:
    samples = samples_of(shape, count, seed=seed)
    return replace(samples, inputs={name: np.abs(array) for name, array in samples.inputs.items()})


#: A layer, the shape of what it reads, the schemes that round it, and how its outputs lie in its answers.
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str], tuple[int, ...]]] = {
    "rows": (lambda: nn.Linear(96, 64), (96,), ["Int8Static", "Int8Dynamic", "Int4WeightOnly"], (0,)),
    "tokens": (lambda: nn.Linear(96, 96), (7, 96), ["Int8Static", "Int8Dynamic", "Int4WeightOnly"], (0, 1)),
    "convolution": (lambda: nn.Conv2d(16, 32, 3, padding=1), (16, 5, 5), ["Int8Static"], (0, 2, 3)),
    "no bias": (lambda: nn.Conv2d(16, 32, 3, padding=1, bias=False), (16, 5, 5), ["Int8Static"], (0, 2, 3)),
    "groups": (lambda: nn.Conv2d(16, 64, 3, padding=1, groups=4), (16, 5, 5), ["Int8Static"], (0, 2, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(16, 32, 3, stride=2), (16, 5, 5), ["Int8Static"], (0, 2, 3)),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("kind", "scheme"), [(kind, scheme) for kind, some in LAYERS.items() for scheme in some[2]])
def test_the_mean_error_of_a_layer_is_about_zero_when_it_is_corrected(kind: str, scheme: str, seed: int) -> None:
    build, shape, _, others = LAYERS[kind]
    torch.manual_seed(seed)
    module, samples = build().eval(), positive(shape, seed=seed)
    with torch.no_grad():
        expected = module(torch.from_numpy(samples.inputs["inputs"])).numpy()
    shifts = {}
    for bias in ("Keep", "Correct"):
        settings = Quantize.model_validate({"scheme": scheme, "bias": bias})
        made = quantize.apply(
            settings, Candidate(module), bench_of(module, calibration=samples, signature=single(shape))
        )
        shifts[bias] = np.abs((here(graph_of(made), samples.inputs) - expected).mean(axis=others)).mean()
        assert made.details["bias"]["method"] == bias
    # What the rounding of activations adds is left.
    assert shifts["Correct"] < 0.15 * shifts["Keep"]


def test_biases_are_corrected_by_tokens_that_count() -> None:
    samples = sentences()
    model = float_model_of(Candidate(tiny_bert()), TEXT)
    scheme = scheme_of(QuantizeScheme.INT8_DYNAMIC)
    able, _ = able_layers(QuantizeScheme.INT8_DYNAMIC, model, None, "")
    made = scheme.convert(model, able, None)

    def shifts(given: Samples) -> dict[str, NDArray[np.float32]]:
        return dict(mean_losses(model, made, able, given).shifts)

    assert samples.mask is not None
    one, other, whole = map(
        shifts, (samples, other_padding(samples), replace(samples, mask=np.ones_like(samples.mask)))
    )
    assert len(one) == 11
    assert all(np.array_equal(one[node], other[node]) for node in one)
    assert any(not np.allclose(one[node], whole[node], rtol=1e-3) for node in one)


class Unbiased(nn.Module):
    """Two layers that read tokens, one of them without a bias."""

    input_shape = (7, 64)

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.biased = nn.Linear(64, 128, bias=False), nn.Linear(128, 64)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.biased(torch.relu(self.plain(tokens)))
        return answers.mean(1)


def test_a_product_without_a_bias_is_left_and_named() -> None:
    made = quantized(Unbiased, "Int8Dynamic", bias="Correct")
    assert made.details["bias"] == {"method": "Correct", "layers": 1, "leftOut": ["plain"]}
    assert "bias: Correct leaves plain as they are: it has no bias." in made.notes


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"bias": "Correct"}, "bias: Correct changes nothing of this model in Int8Dynamic: it has no bias."),
        ({"equalization": "SmoothQuant"}, "equalization: SmoothQuant changes nothing of this model in Int8Dynamic: "),
    ],
)
def test_what_applies_to_nothing_is_told(settings: dict[str, str], says: str) -> None:
    module = nn.Linear(64, 128, bias=False).eval()
    bench = bench_of(module, calibration=samples_of((7, 64)), signature=single((7, 64)))
    made = quantize.apply(Quantize.model_validate({"scheme": "Int8Dynamic", **settings}), Candidate(module), bench)
    assert any(note.startswith(says) for note in made.notes)


def test_each_choice_is_recorded_with_what_it_changed() -> None:
    details = quantized(tiny_bert, "Int8Static", **ALL).details
    assert details["ranges"]["method"] == "Mse"
    assert details["rounding"] == {"method": "Gptq", "layers": 11}
    assert details["bias"] == {"method": "Correct", "layers": 11, "leftOut": []}
    assert details["equalization"]["method"] == "SmoothQuant"
    plain = quantized(tiny_bert, "Int8Dynamic").details
    assert plain["rounding"] == {"method": "Nearest"}
    assert "ranges" not in plain
    assert not {"rounding", "ranges"} & quantized(wine_mlp, "Float16").details.keys()


@pytest.mark.parametrize("build", [digits_cnn, tiny_bert, wine_mlp])
def test_what_every_method_made_is_served_alike_without_vnni(build: Build, serve: Serve) -> None:
    made = quantized(build, "Int8Static", **ALL)
    _, samples, _ = setting(build)
    native, served = (one(graph_of(made), samples.inputs) for one in (here, serve))
    assert np.abs(served - native).max() < 0.01 * np.abs(native).max()
    assert relative_error(build, graph_of(made), serve) < 0.05


def test_methods_give_the_same_bytes_each_time() -> None:
    assert graph_of(quantized(digits_cnn, "Int8Static", **ALL)) == graph_of(quantized(digits_cnn, "Int8Static", **ALL))


def test_layers_that_stay_float_for_their_error_keep_the_weights_and_biases_that_they_had() -> None:
    module = Outlier()
    made = applied_to(module, "Int4WeightOnly", exclude={"maxError": "0.2"}, rounding="Gptq", bias="Correct")
    assert made.details["fidelity"]["error"] <= 0.2
    layers = {layer["layer"]: layer["dtype"] for layer in made.details["layers"]}
    assert layers["middle"] == "float32"
    assert "int4" in layers.values()
    constants = [numpy_helper.to_array(one) for one in onnx.load_from_string(graph_of(made)).graph.initializer]
    for kept in (module.middle.weight.detach().numpy(), module.middle.bias.detach().numpy()):
        assert any(kept.shape == one.shape and np.array_equal(kept, one) for one in constants) or any(
            kept.T.shape == one.shape and np.array_equal(kept.T, one) for one in constants
        )


@pytest.mark.parametrize("excluded", ["layers.1", "layers.0.norm"])
def test_all_within_an_excluded_module_computes_in_float_where_the_rest_does_in_float16(excluded: str) -> None:
    model = float_model_of(Candidate(tiny_bert()), TEXT).keeping([excluded])
    assert model.kept
    able, _ = able_layers(QuantizeScheme.FLOAT16, model, Exclusion.model_validate({"layers": [excluded]}), "")
    made = onnx.shape_inference.infer_shapes(to_float16_compute(model, able, None).proto)
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*made.graph.value_info, *made.graph.output)}
    found = {kinds.get(name) for node in made.graph.node if node.name in model.kept for name in node.output}
    assert TensorProto.FLOAT16 not in found
    assert TensorProto.FLOAT in found
    others = {kinds.get(name) for node in made.graph.node if node.name not in model.kept for name in node.output}
    assert TensorProto.FLOAT16 in others
