"""A quantized graph as a module that can be trained: it rounds as ONNX Runtime does and answers as the graph does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime.quantization.quant_utils import compute_scale_zp
from tests.jobimage.haswell import Serve
from tests.jobimage.modules import DepthwiseSeparable, residual
from tests.jobimage.test_quantize import setting
from tests.jobimage.texts import tiny_bert
from torch import nn

from plimsoll_job.techniques.quantize.fidelity import compare
from plimsoll_job.techniques.quantize.float_model import float_model_of
from plimsoll_job.techniques.quantize.int8_static import to_int8_static
from plimsoll_job.techniques.quantize.network import Network
from plimsoll_job.techniques.quantize.ranges import observe_ranges, read_ranges
from plimsoll_job.techniques.quantize.rounding import WEIGHTS_REACH, grid_of, round_activation, round_weight
from plimsoll_job.techniques.shape import Candidate
from plimsoll_job.zoo import wine_mlp

Build = Callable[[], nn.Module]


@pytest.mark.parametrize(("low", "high"), [(0, 3.7), (-1.3, 2.5), (-5, 0), (-1e-4, 7e5), (0.5, 2), (-3, -1)])
def test_a_grid_is_that_of_onnx_runtime(low: float, high: float) -> None:
    ends = [np.array(end, dtype=np.float32) for end in (low, high)]
    zero, scale = compute_scale_zp(*ends, np.array(-128, np.int8), np.array(127, np.int8))
    found = grid_of(torch.tensor(low).float().clamp(max=0), torch.tensor(high).float().clamp(min=0))
    assert [one.item() for one in found] == [scale.item(), zero.item()]


def test_gradients_pass_the_rounding_and_what_is_cut_off_moves_its_end() -> None:
    numbers = torch.tensor([-5.0, 0.3, 9.0], requires_grad=True)
    low, high = torch.tensor(-1.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    for at, wanted in ((0, (0, 1, 0)), (2, (0, 0, 1))):
        gradients = torch.autograd.grad(
            round_activation(numbers, *grid_of(low, high))[at], (numbers, low, high), retain_graph=True
        )
        assert [gradients[0][at].item(), *(one.item() for one in gradients[1:])] == pytest.approx(wanted, abs=1e-5)
    round_activation(numbers, *grid_of(low, high))[1].backward()  # type: ignore[no-untyped-call]
    assert numbers.grad is not None
    assert numbers.grad.tolist() == pytest.approx([0, 1, 0])
    weight = torch.tensor([[0.1, -2.0], [0.0, 0.0]], requires_grad=True)
    rounded, scale = round_weight(weight, 0, WEIGHTS_REACH[7])
    rounded.sum().backward()  # type: ignore[no-untyped-call]
    assert scale.tolist() == pytest.approx([2 / 64, 1])
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1, 1], [1, 1]]


def depthwise() -> nn.Module:
    return DepthwiseSeparable()


# Its emulated half has mark.slow, from the fixture `serve`.
@pytest.mark.parametrize("build", [wine_mlp, residual, depthwise, tiny_bert])
def test_the_network_in_training_answers_as_the_graph_that_is_served(
    build: Build, serve: Serve, tmp_path: Path
) -> None:
    module, samples, bench = setting(build)
    model = float_model_of(Candidate(module), bench.signature)
    ranges = observe_ranges(model, samples)
    graph = to_int8_static(model, model.layers, ranges)
    floats = model.lean()
    weights = {one.name: floats.source(one) for one in floats.proto.graph.initializer}
    trained = {layer.weight: weights[layer.weight] for layer in model.layers if layer.operator != "Gather"}
    network = Network(graph, trained, read_ranges(ranges))
    given = network(*(torch.from_numpy(samples.inputs[name]) for name in network.inputs))
    graph.write(tmp_path / "model.onnx")
    served = serve((tmp_path / "model.onnx").read_bytes(), samples.inputs)
    # A sum that lies on the border of two integers may be rounded to either.
    assert np.isclose(given.detach().numpy(), served, rtol=1e-4, atol=1e-6).mean() > 0.97
    assert compare(served, given.detach().numpy()).error < 0.01
    given.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert len(network.learned_ranges()) >= len(model.layers) // 2
