"""A model is written and read without its weights in memory, and is what it would be with them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.jobimage.modules import residual
from torch import nn

from plimsoll_job.export.fold import fold
from plimsoll_job.export.lean import LeanModel, read_lean
from plimsoll_job.export.onnx_export import trace_named
from plimsoll_job.load.inputs import Input, single
from plimsoll_job.scratch import Scratch

WEIGHT = np.arange(40 * 40, dtype=np.float32).reshape(40, 40)


def model_of(nodes: list[onnx.NodeProto], **constants: NDArray[Any]) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 40]) for name in ("x", "y")]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def leaned(model: onnx.ModelProto, tmp_path: Path) -> LeanModel:
    path = tmp_path / "given.onnx"
    path.write_bytes(model.SerializeToString())
    return read_lean(path)


def product() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    return model_of(nodes, w=WEIGHT, b=np.ones(40, np.float32), empty=np.zeros((0, 40), np.float32))


def test_what_is_read_and_written_again_is_the_same_model(tmp_path: Path) -> None:
    model = product()
    lean = leaned(model, tmp_path)
    assert list(lean.numbers) == ["w"]
    assert not lean.proto.graph.initializer[0].raw_data
    lean.write(tmp_path / "whole.onnx")
    assert onnx.load(str(tmp_path / "whole.onnx")) == model
    assert lean.size_bytes() == (tmp_path / "whole.onnx").stat().st_size
    lean.write_apart(tmp_path / "apart.onnx")
    assert (tmp_path / "apart.onnx").stat().st_size < 1_000
    assert onnx.load(str(tmp_path / "apart.onnx")).graph.initializer[0].raw_data == WEIGHT.tobytes()
    again = read_lean(tmp_path / "apart.onnx")
    again.write(tmp_path / "again.onnx")
    assert onnx.load(str(tmp_path / "again.onnx")) == model


@pytest.mark.parametrize("length", [3, 50, 1_000, 6_400])
def test_a_torn_file_is_not_read(tmp_path: Path, length: int) -> None:
    lean = leaned(product(), tmp_path)
    lean.write(tmp_path / "whole.onnx")
    (tmp_path / "torn.onnx").write_bytes((tmp_path / "whole.onnx").read_bytes()[:length])
    with pytest.raises(ValueError, match="ends within"):
        read_lean(tmp_path / "torn.onnx")


def test_numbers_that_are_not_those_of_the_shape_are_refused(tmp_path: Path) -> None:
    model = product()
    model.graph.initializer[0].dims[0] = 41
    with pytest.raises(ValueError, match=r"tensor 'w' has 6400 bytes for the shape \[41, 40\]"):
        leaned(model, tmp_path)


def test_an_export_holds_its_weights_once(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(40, 40), nn.Flatten(0), nn.Unflatten(0, (-1, 40)), nn.Linear(40, 40)).eval()
    lean = trace_named(module, single((40,)))
    with torch.no_grad():
        module.get_parameter("0.weight").fill_(0.5)
    # The numbers are the module's own, taken when they are asked for.
    assert {float(np.ravel(lean.numbers[name]())[0]) for name in lean.numbers} >= {0.5}


def test_weights_of_layers_are_constants_also_where_a_layer_takes_tokens(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 40)).eval()
    lean = trace_named(module, (Input("inputs", (7, 40)),))
    assert [node.op_type for node in lean.proto.graph.node] == ["MatMul", "Add", "MatMul", "Add"]
    shapes = {tuple(one.dims): lean.array(one) for one in lean.proto.graph.initializer if len(one.dims) == 2}
    assert np.array_equal(shapes[40, 30], module.get_parameter("0.weight").detach().numpy().T)
    assert np.array_equal(shapes[30, 40], module.get_parameter("1.weight").detach().numpy().T)


def test_a_weight_of_two_uses_is_stored_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(60, 40)
            self.head = nn.Linear(40, 60, bias=False)
            self.head.weight = self.words.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            answers: torch.Tensor = self.head(self.words(ids))
            return answers

    lean = trace_named(Tied().eval(), (Input("input_ids", (7,), "int64", 60),))
    lean.write(tmp_path / "tied.onnx")
    assert (tmp_path / "tied.onnx").stat().st_size < 1.2 * 4 * 60 * 40


def test_a_norm_after_a_convolution_is_a_part_of_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = residual().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            nn.init.normal_(layer.weight)
    lean = trace_named(module, single((3, 8, 8)))
    assert "BatchNormalization" not in {node.op_type for node in lean.proto.graph.node}
    lean.write(tmp_path / "residual.onnx")
    images = torch.randn(3, 3, 8, 8)
    (given,) = ort.InferenceSession(tmp_path / "residual.onnx").run(None, {"inputs": images.numpy()})
    with torch.no_grad():
        assert np.allclose(given, module(images).numpy(), atol=1e-5)


def test_what_is_computed_of_constants_is_computed_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Mul", ["w", "two"], ["m"]),
        helper.make_node("Transpose", ["m"], ["t"], perm=[1, 0]),
        helper.make_node("Identity", ["t"], ["i"]),
        helper.make_node("MatMul", ["x", "i"], ["y"]),
    ]
    lean = leaned(model_of(nodes, w=WEIGHT), tmp_path)
    fold(lean)
    assert [node.op_type for node in lean.proto.graph.node] == ["MatMul"]
    (constant,) = lean.proto.graph.initializer
    assert np.array_equal(lean.array(constant), 2 * WEIGHT.T)


def test_what_needs_an_input_stays(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["w", "x"], ["m"]), helper.make_node("Add", ["m", "w"], ["y"])]
    lean = leaned(model_of(nodes, w=WEIGHT), tmp_path)
    fold(lean)
    assert [node.op_type for node in lean.proto.graph.node] == ["Mul", "Add"]


def test_small_constants_stay_in_the_graph_where_tools_read_them() -> None:
    lean = LeanModel(model_of([]))
    lean.add("few", TensorProto.INT64, (2,), partial(np.array, [3, 4]))
    lean.add("many", TensorProto.FLOAT, (40, 40), lambda: WEIGHT)
    assert list(lean.numbers) == ["many"]
    assert numpy_helper.to_array(lean.proto.graph.initializer[0]).tolist() == [3, 4]


def test_constants_that_are_taken_lie_in_a_file_which_goes_with_the_model() -> None:
    lean, scratch = LeanModel(model_of([])), Scratch()
    lean.take([numpy_helper.from_array(one * WEIGHT, f"w{one}") for one in (1, 2)], scratch)
    lean.take([numpy_helper.from_array(np.ones(3, np.float32), "few")], scratch)
    folder = scratch.path
    del scratch
    assert list(lean.numbers) == ["w1", "w2"]
    assert not any(one.raw_data for one in lean.proto.graph.initializer if one.name != "few")
    assert [np.array_equal(lean.array(lean.proto.graph.initializer[at]), (at + 1) * WEIGHT) for at in (0, 1)] == [
        True
    ] * 2
    assert folder.exists()
    del lean
    assert not folder.exists()


def test_what_nothing_reads_any_more_is_dropped(tmp_path: Path) -> None:
    lean = leaned(product(), tmp_path)
    lean.set_nodes([helper.make_node("Add", ["x", "b"], ["y"])])
    lean.drop_unread()
    assert [one.name for one in lean.proto.graph.initializer] == ["b"]
    assert not lean.numbers


def test_numbers_that_no_protobuf_has_are_refused(tmp_path: Path) -> None:
    (tmp_path / "endless.onnx").write_bytes(b"\xff" * 100_000)
    with pytest.raises(ValueError, match="ends within a number"):
        read_lean(tmp_path / "endless.onnx")
