"""The one output of a graph that is measured, of several: labels, scores and maps of scikit-learn's converters."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tests.jobimage.graphs import load, save

from plimsoll_api.data import DataSource
from plimsoll_job.errors import UserError
from plimsoll_job.load.architectures.graph import GraphModule
from plimsoll_job.load.classes import check_classes_of, class_names
from plimsoll_job.load.data import Samples

CENTRES = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
ROWS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
FIELD = r"spec\.model\.architecture\.onnx"


def classifier(*outputs: str, strings: bool = False, numbers: tuple[int, ...] = (0, 1, 2)) -> onnx.ModelProto:
    """Return scaler, linear classifier and ZipMap, with these of the outputs label, raw and probabilities."""
    names = {"classlabels_strings": ["ash", "elm", "oak"]} if strings else {"classlabels_int64s": list(numbers)}
    labels = {name.replace("_int64s", "_ints"): value for name, value in names.items()}
    nodes = [
        helper.make_node("Scaler", ["x"], ["scaled"], domain="ai.onnx.ml", offset=[0.0] * 4, scale=[1.0] * 4),
        helper.make_node(
            "LinearClassifier", ["scaled"], ["label", "raw"], domain="ai.onnx.ml",
            coefficients=CENTRES.ravel().tolist(), intercepts=[0.0] * 3, multi_class=1,
            post_transform="SOFTMAX", **labels,
        ),
        helper.make_node("ZipMap", ["raw"], ["probabilities"], domain="ai.onnx.ml", **names),
    ]  # fmt: skip
    maps = onnx.ValueInfoProto(name="probabilities")
    maps.type.sequence_type.elem_type.map_type.key_type = TensorProto.STRING if strings else TensorProto.INT64
    maps.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    known = {
        "label": helper.make_tensor_value_info("label", TensorProto.STRING if strings else TensorProto.INT64, [None]),
        "raw": helper.make_tensor_value_info("raw", TensorProto.FLOAT, [None, 3]),
        "probabilities": maps,
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [known[name] for name in outputs],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def wanted() -> torch.Tensor:
    return (ROWS @ torch.from_numpy(CENTRES).T).softmax(dim=1)


@pytest.mark.parametrize("strings", [False, True])
def test_the_output_that_is_named_answers_maps_by_the_tensor_that_they_are_made_of(
    strings: bool, tmp_path: Path
) -> None:
    save(tmp_path, classifier("label", "probabilities", strings=strings))
    source = load(tmp_path, architecture={"onnx": {"output": "probabilities"}})
    torch.testing.assert_close(source.module(ROWS), wanted())
    assert source.classes == (("ash", "elm", "oak") if strings else ("0", "1", "2"))
    assert isinstance(source.module, GraphModule)
    graph = source.module.lean().proto.graph
    assert [value.name for value in graph.output] == ["probabilities"]
    assert [node.op_type for node in graph.node] == ["Sub", "Mul", "LinearClassifier"]


def test_maps_that_are_the_only_output_need_no_name(tmp_path: Path) -> None:
    save(tmp_path, classifier("probabilities"))
    torch.testing.assert_close(load(tmp_path).module(ROWS), wanted())


def test_what_is_computed_for_other_outputs_is_left_out(tmp_path: Path) -> None:
    model = classifier("label", "raw", "probabilities")
    model.graph.node.append(helper.make_node("If", ["label"], ["branched"], then_branch=model.graph))
    save(tmp_path, model)
    torch.testing.assert_close(load(tmp_path, architecture={"onnx": {"output": "raw"}}).module(ROWS), wanted())


@pytest.mark.parametrize(
    ("model", "output", "told"),
    [
        (
            classifier("label", "probabilities"),
            None,
            r"\.output: the graph has several outputs: label \(int64\), probabilities \(a sequence\); name the one",
        ),
        (classifier("label", "raw"), "row", r"\.output: the graph has no output 'row', .*; did you mean raw\?"),
        (classifier("label", "raw"), "label", r": the output label is int64, expected a tensor of float32; .*\.output"),
        (
            classifier("label", "probabilities", numbers=(3, 5, 7)),
            "probabilities",
            r": the maps of probabilities stand for the classes 3, 5, 7, .*zipmap=False",
        ),
    ],
)
def test_an_output_that_cannot_be_measured_is_told_with_what_there_is(
    model: onnx.ModelProto, output: str | None, told: str, tmp_path: Path
) -> None:
    save(tmp_path, model)
    with pytest.raises(UserError, match=f"^{FIELD}{told}"):
        load(tmp_path, architecture={"onnx": {"output": output} if output else {}})


def test_names_of_the_maps_hold_labels_to_their_order() -> None:
    known = class_names([], {}, 3, ("ash", "elm", "oak"))
    samples = Samples({"x": np.zeros((2, 4), np.float32)}, np.array([0, 1]), "", classes=("oak", "elm", "ash"))
    source = DataSource.model_validate({"uri": "pvc://data/x.csv"})
    with pytest.raises(UserError, match=r"the model has in another order \(ash, elm, oak\)"):
        check_classes_of(samples, source, 3, "spec.data.evaluation", known)
