"""Layers of a graph by the names of their modules."""

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.jobimage.modules import residual
from torch import nn

from plimsoll_job.export.graph import module_of, name_nodes
from plimsoll_job.export.onnx_export import trace_named
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques.quantize.layers import find_layers


@pytest.mark.parametrize(
    ("node", "modules", "name"),
    [
        ("/features/features.0/Conv", {"features", "features.0"}, "features.0"),
        ("/features/features.0/features.0.1/Conv", {"features", "features.0", "features.0.1"}, "features.0.1"),
        (
            "/encoder/layer.0/query/MatMul",
            {"encoder", "encoder.layer", "encoder.layer.0.query"},
            "encoder.layer.0.query",
        ),
        ("/head/Gemm", {"head"}, "head"),
        ("/body/norm/Mul", {"body"}, "body"),
        ("Gemm_7", {"head"}, "Gemm_7"),
    ],
)
def test_a_node_is_named_by_its_module(node: str, modules: set[str], name: str) -> None:
    assert module_of(node, modules) == name


def test_every_layer_of_a_module_is_found_under_its_name() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 8))
            self.b = nn.ModuleDict({"x": nn.Sequential(nn.Linear(8, 8))})

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.b["x"](self.a(rows))
            return answer

    for module, shape in ((Nested(), (8,)), (residual(), (3, 8, 8))):
        names = [name for name, _ in module.named_modules()]
        expected = [name for name, one in module.named_modules() if isinstance(one, (nn.Linear, nn.Conv2d))]
        layers = find_layers(trace_named(module.eval(), single(shape)).proto, names)
        assert sorted(layer.name for layer in layers) == sorted(expected)


def test_nodes_without_names_get_some_and_layers_are_named_by_them() -> None:
    weight = numpy_helper.from_array(torch.ones(3, 3).numpy(), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Relu", ["y"], ["r"], name="same"),
        helper.make_node("MatMul", ["r", "w"], ["z"], name="same"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in ("x", "z")]
    model: onnx.ModelProto = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], [weight]))
    name_nodes(model)
    layers = find_layers(model, [])
    assert [(layer.node, layer.name) for layer in layers] == [("MatMul_0", "MatMul_0"), ("same_2", "same_2")]


def test_products_of_two_activations_are_no_layers() -> None:
    class Product(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows @ rows.transpose(1, 2)

    assert find_layers(trace_named(Product(), single((4, 4))).proto, [""]) == ()
