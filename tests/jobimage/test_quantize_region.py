"""Int8 is what was ordered and what lies between convolutions; all that is within an excluded module stays float."""

from collections import Counter
from functools import cache

import onnx
import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.haswell import Serve
from tests.jobimage.modules import Residual, residual
from tests.jobimage.test_quantize import Build, graph_of, quantized, relative_error
from tests.jobimage.texts import tiny_bert
from torch import nn
from torchvision.models import VisionTransformer

from plimsoll_api.spec import Quantize
from plimsoll_job.export.graph import module_of
from plimsoll_job.techniques import quantize
from plimsoll_job.techniques.quantize.float_model import float_model_of
from plimsoll_job.techniques.quantize.region import int8_nodes
from plimsoll_job.techniques.shape import Candidate

#: What only transformers have between their layers, and no integer kernel is worth its rounding for.
OF_TRANSFORMERS = {"Add", "LayerNormalization", "Softmax"}


class Vision(VisionTransformer):  # type: ignore[misc]  # torchvision has no types
    """Six blocks of attention behind one convolution that cuts patches."""

    input_shape = (3, 16, 16)

    def __init__(self) -> None:
        super().__init__(
            image_size=16, patch_size=4, num_layers=6, num_heads=2, hidden_dim=64, mlp_dim=128, num_classes=10
        )
        nn.init.normal_(self.heads.head.weight, std=0.05)


class Excited(nn.Module):
    """Squeeze and excitation between convolutions, by linear layers, beside a sum that leads around."""

    input_shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 1), nn.Conv2d(32, 64, 3)
        self.squeeze, self.excite = nn.Linear(32, 32), nn.Linear(32, 32)
        self.relu, self.head = nn.ReLU(), nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.relu(self.stem(images))
        inner = self.inner(stem)
        scale = torch.sigmoid(self.excite(torch.relu(self.squeeze(inner.mean((2, 3))))))
        answers: torch.Tensor = self.head(self.outer(inner * scale[:, :, None, None] + stem).mean((2, 3)))
        return answers


@cache
class Branches(nn.Module):
    """Blocks as RepVGG's in training: two convolutions and the input itself, each with a batch norm, are summed up."""

    input_shape = (3, 8, 8)

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)
            self.alone = nn.BatchNorm2d(width)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            summed: torch.Tensor = self.wide(images) + self.narrow(images) + self.alone(images)
            return summed.relu()

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.blocks = nn.Sequential(self.Block(8), self.Block(8))
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_var is not None
                nn.init.uniform_(layer.running_var, 0.5, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.last(self.blocks(self.stem(images))).mean((2, 3)))


def made(build: Build, *excluded: str) -> onnx.ModelProto:
    """Return the model in Int8Static, its nodes under the names that they had."""
    exclude = {"exclude": {"layers": list(excluded)}} if excluded else {}
    return onnx.load_from_string(graph_of(quantized(build, "Int8Static", **exclude)))


def readers_of_rounded(model: onnx.ModelProto) -> Counter[str]:
    """Return the operators that read activations which were rounded."""
    constants = {constant.name for constant in model.graph.initializer}
    rounded = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants
    }
    return Counter(node.op_type for node in model.graph.node if rounded & set(node.input))


def test_a_convolution_that_cuts_patches_makes_nothing_else_int8() -> None:
    read = readers_of_rounded(made(Vision))
    assert read["Conv"] == 1
    assert read["MatMul"] + read["Gemm"] == 6 * 4 + 1
    assert not OF_TRANSFORMERS & read.keys()


@pytest.mark.slow
@pytest.mark.parametrize(("excluded", "error"), [((), 0.15), (("encoder",), 0.08)])
def test_a_vision_transformer_keeps_its_answers(excluded: tuple[str, ...], error: float, serve: Serve) -> None:
    assert relative_error(Vision, made(Vision, *excluded).SerializeToString(), serve) < error


def test_all_within_an_excluded_module_stays_float() -> None:
    read = readers_of_rounded(made(Vision, "encoder"))
    assert read["Conv"] == 1
    assert read["MatMul"] + read["Gemm"] == 1
    assert not OF_TRANSFORMERS & read.keys()


def kept_nodes(build: Build, *excluded: str) -> tuple[set[str], set[str]]:
    """Return the nodes that compute in int8, and those of the excluded modules."""
    torch.manual_seed(0)
    module = build().eval()
    signature = bench_of(module).signature
    model = float_model_of(Candidate(module), signature).keeping(excluded)
    graph = model.lean().proto.graph
    taken = int8_nodes(graph, [one for one in model.layers if one.node not in model.kept], model.kept)
    names = [name for name, _ in module.named_modules()]
    of_module = {node.name for node in graph.node if module_of(node.name, names) in excluded}
    return taken, of_module


def test_what_lies_between_convolutions_is_int8_and_an_excluded_pool_is_not() -> None:
    taken, _ = kept_nodes(Residual)
    operators = {name.rpartition("/")[2].split("_")[0] for name in taken}
    assert {"Conv", "Relu", "Add", "GlobalAveragePool", "Gemm"} <= operators
    taken, pools = kept_nodes(Residual, "pool")
    assert pools
    assert not taken & pools
    module = residual()
    bench = bench_of(module, calibration=samples_of((3, 8, 8), 16))
    order = Quantize.model_validate({"scheme": "Int8Static", "exclude": {"layers": ["pool"]}})
    assert not [note for note in quantize.apply(order, Candidate(module), bench).notes if "changes nothing" in note]


def test_sums_of_branches_are_int8_where_one_of_them_is_a_batch_norm_alone() -> None:
    taken, _ = kept_nodes(Branches)
    operators = [name.rpartition("/")[2].split("_")[0] for name in taken]
    assert operators.count("Add") == 4
    assert operators.count("BatchNormalization") == 2
    taken, norms = kept_nodes(Branches, "blocks.1.alone")
    assert norms
    assert not taken & norms


def test_what_reads_linear_layers_stays_float_between_convolutions_too() -> None:
    read = readers_of_rounded(made(Excited))
    assert read["Conv"] == 3
    assert read["Sigmoid"] == 0
    assert relative_error(Excited, made(Excited).SerializeToString()) < 0.1


def test_float_nodes_read_what_was_not_rounded() -> None:
    """The sum that leads around attention reads the embedding and the norm, which linear layers read rounded."""
    read = readers_of_rounded(made(tiny_bert))
    # What an embedding looks up is rounded as its table is.
    assert read.pop("Add") == 1
    assert not OF_TRANSFORMERS & read.keys()
    assert read["MatMul"] + read["Gemm"] == 11
