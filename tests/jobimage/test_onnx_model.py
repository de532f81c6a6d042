"""An ONNX model is read whole, and its operators, inputs and batches are checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.jobimage.exported import export_bytes
from tests.jobimage.graphs import exported, load, save
from tests.jobimage.modules import PlainCNN
from torch import nn

from plimsoll_api.model import canonical_json, digest_of
from plimsoll_api.sources import Task
from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import signature
from plimsoll_job.figures import count
from plimsoll_job.load.data import Samples
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import single
from plimsoll_job.load.signature import signature_of

IMAGES = torch.zeros(1, 3, 8, 8)
TASK = Task.IMAGE_CLASSIFICATION


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return PlainCNN().eval()


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize("free", [True, False])
def test_it_answers_as_the_module_that_it_was_exported_from_at_any_batch(
    tmp_path: Path, opset: int, free: bool
) -> None:
    save(tmp_path, exported(cnn(), IMAGES, free=free, opset_version=opset))
    source = load(tmp_path)
    inputs = signature_of(source.module, {}, TASK)
    assert [(one.name, one.shape) for one in inputs] == [("pixels", (3, 8, 8))]
    graph = export_bytes(source.take(), inputs)
    given = example_of(inputs, 7)[0]
    (got,) = ort.InferenceSession(graph).run(None, {"pixels": given.numpy()})
    with torch.no_grad():
        assert np.allclose(got, cnn()(given).numpy(), atol=1e-5)
    (one,), (out,) = signature(onnx.load_from_string(graph))
    assert (one.name, one.shape, out.name, out.shape) == ("pixels", [None, 3, 8, 8], "scores", [None, 5])


def test_it_counts_what_its_module_counts(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        """A convolution in groups, a matrix without a bias and one with, of three axes and of two."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 8, 3, groups=2, bias=False)
            self.wide, self.narrow = nn.Linear(36, 20, bias=False), nn.Linear(20, 6)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            hidden = self.wide(self.conv(images).flatten(2)).mean(1)
            answer: torch.Tensor = self.narrow(hidden)
            return answer

    save(tmp_path, exported(Mixed(), torch.zeros(1, 4, 8, 8)))
    assert count(load(tmp_path).module, single((4, 8, 8))) == count(Mixed(), single((4, 8, 8)))


def with_external_data(root: Path, location: str = "weights.bin") -> Path:
    model = exported(cnn(), IMAGES)
    target = root / "models" / "given" / "model.onnx"
    target.parent.mkdir(parents=True)
    onnx.save_model(model, str(target), save_as_external_data=True, location=location, size_threshold=0)
    return target


def test_weights_in_files_of_their_own_are_read_and_verified(tmp_path: Path) -> None:
    target = with_external_data(tmp_path)
    source = load(tmp_path)
    digests = {name: digest_of((target.parent / name).read_bytes()) for name in ("model.onnx", "weights.bin")}
    assert source.digest == digest_of(canonical_json(digests))
    given = example_of(single((3, 8, 8)), 3)[0]
    with torch.no_grad():
        assert torch.allclose(source.take()(given), cnn()(given), atol=1e-5)
    with pytest.raises(
        UserError, match=r"keeps weights in 'weights\.bin' beside it; call the model model\.onnx and na"
    ):
        load(tmp_path, "pvc://models/given/model.onnx")
    weights = target.parent / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"tensor .* lies at bytes \d+ to \d+ of weights\.bin, which has \d+"):
        load(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match=r"there is no file pvc://models/given/weights\.bin"):
        load(tmp_path)


def relocated(path: Path, location: str) -> None:
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = location
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin", "..\\secret.bin", "", "link"]
)
def test_weights_are_never_read_from_outside_of_the_folder(tmp_path: Path, location: str) -> None:
    target = with_external_data(tmp_path)
    (tmp_path / "models" / "secret.bin").write_bytes((target.parent / "weights.bin").read_bytes())
    (target.parent / "link").symlink_to(tmp_path / "models" / "secret.bin")
    relocated(target, location)
    with pytest.raises(UserError, match="which is not inside its folder") as caught:
        load(tmp_path)
    assert caught.value.reason == "PathEscape"


def test_a_checksum_that_the_model_states_is_held_to(tmp_path: Path) -> None:
    target = with_external_data(tmp_path)
    model = onnx.load(str(target), load_external_data=False)
    model.graph.initializer[0].external_data.add(key="checksum", value="0" * 40)
    target.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"of weights\.bin has not the checksum"):
        load(tmp_path)


def test_torn_and_foreign_files_are_refused(tmp_path: Path) -> None:
    target = save(tmp_path, exported(cnn(), IMAGES))
    whole = target.read_bytes()
    for content in (whole[:1000], b"", b"no graph at all", b"\0" * 64):
        target.write_bytes(content)
        with pytest.raises(UserError, match=r"spec\.model\.uri: .*(is not a whole|is not an) ONNX file"):
            load(tmp_path)
    model = exported(cnn(), IMAGES)
    model.graph.initializer[0].raw_data = b"short"
    save(tmp_path, model)
    with pytest.raises(UserError, match="is damaged: 5 bytes for the shape"):
        load(tmp_path)
    save(tmp_path, exported(cnn(), IMAGES))
    with pytest.raises(UserError, match=r"spec\.model\.digest"):
        load(tmp_path, digest="sha256:" + "0" * 64)


def operator(kind: str, domain: str = "") -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type, model.graph.node[0].domain = kind, domain

    return change


def weight(array: np.ndarray) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        (first, *_) = (one for one in model.graph.initializer if len(one.dims) == 4)
        first.CopyFrom(numpy_helper.from_array(array, first.name))

    return change


def second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info(model.graph.node[0].output[0], TensorProto.FLOAT, None))


def bytes_in(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def outside(name: str) -> TensorProto:
    """Return a constant that lies in a file, as seen from where this process runs."""
    constant = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    constant.external_data.add(key="location", value="secret.bin")
    return constant


def sparse(name: str) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(outside(name), numpy_helper.from_array(np.zeros(1, np.int64), f"{name}_at"), [4])


def sparse_weight(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.append(sparse("secret"))


def sparse_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["secret"], sparse_value=sparse("value")))


def graph_within(model: onnx.ModelProto) -> None:
    within = helper.make_graph(
        [helper.make_node("Identity", ["secret"], ["told"])], "within", [], [], [outside("secret")]
    )
    model.graph.node.append(
        helper.make_node("BeamSearch", ["pixels"], ["found"], domain="com.microsoft", decoder=within)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (sparse_weight, "constants are stored sparse"),
        (sparse_constant, "constants are stored sparse"),
        (graph_within, r"branches or loops \(BeamSearch\)"),
        (operator("QLinearConv"), r"quantized already \(QLinearConv\); give the float model"),
        (operator("MatMulNBits", "com.microsoft"), "quantized already"),
        (operator("Mine", "my.company"), r"operators my\.company:Mine are not of ONNX .*custom operators"),
        (operator("Loop"), r"branches or loops \(Loop\)"),
        (operator("Nothing"), "ONNX Runtime cannot load the model: .*Nothing"),
        (weight(np.zeros((12, 3, 3, 3), np.float16)), "the weights are float16; give the model as it was in float32"),
        (weight(np.zeros((12, 3, 3, 3), np.int8)), "the weights are int8"),
        (weight(np.full((12, 3, 3, 3), np.nan, np.float32)), "holds NaN or infinite numbers"),
        (second_output, r"\.output: the graph has several outputs: scores \(float32\), .*; name the one that answers"),
        (bytes_in, "the inputs are pixels of uint8; expected one of float32"),
        (lambda model: model.opset_import[0].__setattr__("version", 99), "ONNX Runtime cannot load the model"),
        (lambda model: model.opset_import[0].__setattr__("version", 3), "of operator set 3 and cannot be brought to"),
    ],
)
def test_graphs_that_cannot_be_worked_on_are_refused_with_the_reason(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    model = exported(cnn(), IMAGES)
    change(model)
    save(tmp_path, model)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


class OfOneSample(nn.Module):
    """Answers with what is left when the samples are mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(inputs - inputs.mean(dim=0))
        return answer


@pytest.mark.parametrize("scale", [1, 1e-5])
def test_a_batch_that_cannot_be_changed_is_refused(tmp_path: Path, scale: float) -> None:
    module = OfOneSample()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    save(tmp_path, exported(module, torch.zeros(1, 4), free=False))
    with pytest.raises(UserError, match=r"exported for batches of 1 only \(a sample .*dynamic_axes") as caught:
        signature_of(load(tmp_path).module, {}, Task.TABULAR_CLASSIFICATION)
    assert caught.value.reason == "FixedBatch"


class Shifted(nn.Module):
    """Adds numbers that are shaped for a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.shift = nn.Linear(4, 2), nn.Parameter(torch.arange(2.0))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(inputs) + self.shift.reshape(1, 2)
        return answer


def test_constants_that_are_shaped_for_one_sample_serve_any_batch(tmp_path: Path) -> None:
    model = exported(Shifted(), torch.zeros(1, 4), free=False, do_constant_folding=False)
    assert any(node.op_type == "Reshape" for node in model.graph.node)
    save(tmp_path, model)
    assert signature_of(load(tmp_path).module, {}, Task.TABULAR_CLASSIFICATION)[0].shape == (4,)


def test_data_must_be_of_the_graphs_shape(tmp_path: Path) -> None:
    save(tmp_path, exported(cnn(), IMAGES))
    samples = Samples({"pixels": np.zeros((2, 3, 9, 9), np.float32)}, None, "")
    with pytest.raises(UserError, match=r"f: one sample has the shape \[3, 9, 9\], the model takes \[3, 8, 8\]"):
        signature_of(load(tmp_path).module, {"f": samples}, TASK)
    with pytest.raises(UserError, match=r"answers with one tensor of shape \[batch, length, classes\]"):
        signature_of(load(tmp_path).module, {}, Task.TOKEN_CLASSIFICATION)
