"""An export takes any batch, answers as the module, and carries nothing that no runtime reads."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from tests.jobimage.exported import export_bytes
from tests.jobimage.modules import residual
from torch import nn

from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import opset, signature
from plimsoll_job.load.inputs import single
from plimsoll_job.zoo import digits_cnn


class OneSample(nn.Module):
    """Takes one sample for granted, which a trace keeps for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.layer(rows)
        return answers + float(rows.shape[0])


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_the_batch_is_free(batch: int) -> None:
    module = residual().eval()
    inputs = torch.randn(batch, 3, 8, 8)
    (given,) = ort.InferenceSession(export_bytes(module, single((3, 8, 8)))).run(None, {"inputs": inputs.numpy()})
    assert np.allclose(given, module(inputs).detach().numpy(), atol=1e-5)


def test_the_signature_leaves_the_batch_open() -> None:
    model = onnx.load_from_string(export_bytes(digits_cnn(), single((1, 8, 8))))
    (taken,), (given,) = signature(model)
    assert (taken.name, taken.dtype, taken.shape) == ("inputs", "float32", [None, 1, 8, 8])
    assert (given.name, given.dtype, given.shape) == ("logits", "float32", [None, 10])
    assert opset(model) == 17


def test_the_same_module_gives_the_same_bytes() -> None:
    assert export_bytes(residual(), single((3, 8, 8))) == export_bytes(residual(), single((3, 8, 8)))


def test_the_file_is_the_weights_and_little_else() -> None:
    graph = export_bytes(digits_cnn(), single((1, 8, 8)))
    assert len(graph) < 4 * 326_346 + 2_000
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model)
    assert not model.graph.value_info
    assert not any(node.doc_string or node.name for node in model.graph.node)


def test_an_export_that_answers_otherwise_is_refused() -> None:
    with pytest.raises(UserError, match="answers otherwise than the module at batch 1"):
        export_bytes(OneSample().eval(), single((4,)))


class Drawing(nn.Module):
    """Answers with random numbers beside its own."""

    def __init__(self, draw: Callable[[torch.Tensor], torch.Tensor], scale: float) -> None:
        super().__init__()
        self.layer, self._draw, self._scale = nn.Linear(4, 2), draw, scale

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.layer(rows)
        return answers * self._scale + self._draw(answers) * 1e-3


@pytest.mark.parametrize("scale", [1, 1e-3])
@pytest.mark.parametrize("draw", [torch.rand_like, torch.randn_like, lambda like: torch.rand(1, 2)])
def test_a_module_that_draws_random_numbers_is_refused(
    draw: Callable[[torch.Tensor], torch.Tensor], scale: float
) -> None:
    with pytest.raises(UserError, match=r"its answers are drawn at random, by Random(Uniform|Normal)(Like)?"):
        export_bytes(Drawing(draw, scale).eval(), single((4,)))


def test_small_answers_that_differ_are_refused() -> None:
    def otherwise(like: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 2), float(like.shape[0]))

    module = Drawing(otherwise, 1e-3).eval()
    with pytest.raises(UserError, match=r"at batch 1 of samples \[4\]: the largest difference is 0.001, "):
        export_bytes(module, single((4,)))


def test_what_torch_cannot_export_is_refused() -> None:
    class Untraceable(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            answers: torch.Tensor = torch.linalg.eigvals(rows.reshape(-1, 2, 2)).real
            return answers

    with pytest.raises(UserError, match="cannot be exported to ONNX"):
        export_bytes(Untraceable(), single((4,)))


@pytest.mark.parametrize("given", [1, 2, 5, 7, 8])
@pytest.mark.parametrize("wanted", [1, 3, 4, 7])
def test_pooling_to_more_or_other_positions_than_there_are(given: int, wanted: int) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d((wanted, 2)), nn.Flatten())
    export_bytes(module, single((1, given, 4)))


@pytest.mark.parametrize("wanted", [(None, 1), (None, 2), (None, 5), (3, None), (None, None)])
def test_pooling_of_one_axis_leaves_the_other(wanted: Any) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(wanted), nn.Flatten())
    graph = onnx.load_from_string(export_bytes(module, single((1, 7, 4))))
    assert {node.op_type for node in graph.graph.node} <= {"Conv", "AveragePool", "MatMul", "Constant", "Flatten"}
    assert sum(node.op_type in {"AveragePool", "MatMul"} for node in graph.graph.node) == (wanted != (None, None))


def test_pooling_to_the_size_of_another_layer() -> None:
    class Paths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 3, stride=2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            small = self.narrow(images)
            size = (small.shape[2], small.shape[3])
            answers: torch.Tensor = nn.functional.adaptive_avg_pool2d(self.wide(images), size) + small
            return answers.flatten(1)

    export_bytes(Paths(), single((1, 7, 8)))


class Namesake(nn.Module):
    """Its weights have the names of its input, of its answers, and of what could stand in for the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs, self.inputs_ = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.logits = nn.Parameter(torch.randn(3))
        self.layer = nn.Linear(width, 3)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.layer(given * self.inputs + self.inputs_) * self.logits
        return answers


# Small constants stay in the graph, large ones are read when the file is written.
@pytest.mark.parametrize("width", [4, 512])
def test_a_weight_may_have_the_name_of_an_input_or_of_the_answers(width: int) -> None:
    torch.manual_seed(0)
    module, samples = Namesake(width).eval(), torch.randn(3, width)
    session = ort.InferenceSession(export_bytes(module, single((width,))))
    assert ([one.name for one in session.get_inputs()], session.get_outputs()[0].name) == (["inputs"], "logits")
    with torch.no_grad():
        expected = module(samples).numpy()
    (got,) = session.run(None, {"inputs": samples.numpy()})
    assert np.allclose(got, expected, atol=1e-4)


class Scaled(nn.Module):
    """Takes more than its inputs, where code calls it: numbers and switches that have defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, rows: torch.Tensor, scale: float = 2.0, axis: int = 1, causal: bool = False) -> torch.Tensor:
        rows = self.layer(rows)[:, None]
        rows = nn.functional.scaled_dot_product_attention(rows, rows, rows, is_causal=causal)[:, 0]
        return rows.softmax(axis) * scale


class Named(Scaled):
    """Takes them by their names only."""

    def forward(self, rows: torch.Tensor, *, scale: float = 3.0) -> torch.Tensor:  # type: ignore[override]
        return super().forward(rows, scale=scale)


@pytest.mark.parametrize(
    "module", [Scaled(), Named(), torch.jit.script(nn.Linear(4, 4))], ids=["defaults", "by name", "scripted"]
)
def test_further_parameters_of_forward_keep_their_defaults(module: nn.Module) -> None:
    """The exporter made inputs of them, which ended in an exception of torch's or as weights that are none."""
    rows = torch.randn(3, 4)

    (given,) = ort.InferenceSession(export_bytes(module.eval(), single((4,)))).run(None, {"inputs": rows.numpy()})

    assert np.allclose(given, module(rows).detach().numpy(), atol=1e-6)
    assert module.forward.__name__ == "forward"
