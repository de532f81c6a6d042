"""Int8 is really int8, and smaller."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.modules import residual

from plimsoll_api.spec import Quantize
from plimsoll_job.errors import UserError
from plimsoll_job.techniques import quantize
from plimsoll_job.techniques.quantize.int8_static import float_weights, weight_types
from plimsoll_job.techniques.shape import Applied, Candidate
from plimsoll_job.zoo import digits_cnn, wine_mlp

INT8 = Quantize.model_validate({"scheme": "Int8Static"})


def quantized(module: torch.nn.Module) -> Applied:
    calibration = samples_of(module.input_shape, 64)  # type: ignore[arg-type]
    return quantize.apply(INT8, Candidate(module.eval()), bench_of(module.eval(), calibration=calibration))


@pytest.mark.parametrize(("build", "layers"), [(digits_cnn, 6), (residual, 4), (wine_mlp, 3)])
def test_every_weight_is_int8_in_the_graph(build: type[torch.nn.Module], layers: int) -> None:
    module = build().eval()
    applied = quantized(module)
    assert applied.candidate.graph is not None
    model = onnx.load_from_string(applied.candidate.graph)
    onnx.checker.check_model(model)
    assert list(weight_types(model).values()) == ["int8"] * layers
    assert float_weights(model) == []
    large = [numpy_helper.to_array(constant) for constant in model.graph.initializer]
    assert {str(array.dtype) for array in large if array.ndim > 1} == {"int8"}
    assert applied.details["weightTypes"] == {"int8": layers}


def test_the_file_is_nearly_four_times_smaller_and_answers_alike() -> None:
    module = digits_cnn().eval()
    graph = quantized(module).candidate.graph
    assert graph is not None
    assert len(graph) < 0.27 * 4 * 326_346
    inputs = samples_of((1, 8, 8), 64).inputs["inputs"]
    session = ort.InferenceSession(graph)
    (given,) = session.run(None, {"inputs": inputs})
    expected = module(torch.from_numpy(inputs)).detach().numpy()
    assert np.abs(given - expected).max() < 0.1 * np.abs(expected).max()
    (one,) = session.run(None, {"inputs": inputs[:1]})
    assert np.allclose(one, given[:1], atol=1e-5)


def test_the_same_model_gives_the_same_bytes() -> None:
    assert quantized(residual()).candidate.graph == quantized(residual()).candidate.graph


def test_a_model_too_small_to_gain_is_refused() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    module.input_shape = (2,)  # type: ignore[assignment]
    with pytest.raises(UserError, match="too small for quantization to pay") as error:
        quantized(module)
    assert error.value.reason == "NotSmaller"


def test_a_layer_that_stayed_float_is_found() -> None:
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        [weight],
    )
    assert float_weights(helper.make_model(graph)) == ["y"]


def test_calibration_data_is_needed() -> None:
    module = wine_mlp().eval()
    with pytest.raises(UserError, match=r"spec.data.calibration: "):
        quantize.apply(INT8, Candidate(module), bench_of(module))
