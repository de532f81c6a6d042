"""Graphs of old operator sets answer as they did before they were brought to a newer one, or are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.jobimage.graphs import load, save

from plimsoll_api.sources import Task
from plimsoll_job.errors import UserError
from plimsoll_job.load.architectures.graph import GraphModule
from plimsoll_job.load.data import Samples
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.signature import signature_of

PIXELS = (2, 5, 6)
DATA = Samples({"pixels": np.random.default_rng(0).normal(size=(8, *PIXELS)).astype(np.float32)}, None, "")


def graph(nodes: list[onnx.NodeProto], opset: int, **constants: list[float]) -> onnx.ModelProto:
    """A graph whose nodes lead from pixels to `grown`, of which the mean square of each channel is the answer."""
    ends = [
        helper.make_node("Mul", ["grown", "grown"], ["squares"]),
        helper.make_node("GlobalAveragePool", ["squares"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["scores"]),
    ]
    inner = helper.make_graph(
        [*nodes, *ends],
        "old",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", *PIXELS])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.array(values, np.float32), name) for name, values in constants.items()],
    )
    return helper.make_model(inner, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def loaded(root: Path, model: onnx.ModelProto) -> GraphModule:
    """The module that a job makes of the model, once it is checked on the data."""
    save(root, model)
    module = load(root).module
    assert isinstance(module, GraphModule)
    signature_of(module, {"spec.data.calibration.inputs": DATA}, Task.TABULAR_CLASSIFICATION)
    return module


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("opset", "node"),
    [
        (8, helper.make_node("Upsample", ["pixels"], ["grown"], scales=[1.0, 1.0, 2.5, 1.5])),
        (9, helper.make_node("Upsample", ["pixels", "scales"], ["grown"])),
        (10, helper.make_node("Resize", ["pixels", "scales"], ["grown"])),
    ],
)
def test_images_are_resized_by_the_rule_of_their_operator_set(
    tmp_path: Path, opset: int, node: onnx.NodeProto, mode: str
) -> None:
    """The converter leaves values half a pixel from where they were."""
    resize = onnx.NodeProto()
    resize.CopyFrom(node)
    resize.attribute.append(helper.make_attribute("mode", mode))
    given = graph([resize], opset, **({"scales": [1.0, 1.0, 2.5, 1.5]} if len(resize.input) > 1 else {}))
    (wanted,) = ort.InferenceSession(given.SerializeToString()).run(None, DATA.inputs)
    module = loaded(tmp_path, given)
    (example,) = example_of(
        signature_of(module, {"spec.data.calibration.inputs": DATA}, Task.TABULAR_CLASSIFICATION), len(DATA)
    )
    order = [int(np.flatnonzero((DATA.inputs["pixels"] == one).all(axis=(1, 2, 3)))[0]) for one in example.numpy()]
    assert np.allclose(module(example).numpy(), wanted[order], atol=1e-5)


@pytest.mark.parametrize(
    ("node", "scales"),
    [
        (helper.make_node("Hardmax", ["pixels"], ["grown"], axis=1), {}),
        (helper.make_node("Resize", ["pixels", "scales"], ["grown"], mode="nearest"), {"scales": [1.0, 1.0, 0.4, 0.4]}),
    ],
)
def test_what_answers_otherwise_in_a_newer_operator_set_is_refused(
    tmp_path: Path, node: onnx.NodeProto, scales: dict[str, list[float]]
) -> None:
    with pytest.raises(
        UserError, match=r"old operator set; brought to a newer one, it answers otherwise: .*13 or later"
    ):
        loaded(tmp_path, graph([node], 10, **scales))


def test_a_graph_that_draws_its_answers_is_called_so(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["pixels"], ["noise"]),
        helper.make_node("Add", ["pixels", "noise"], ["grown"]),
    ]
    with pytest.raises(UserError, match=r"drawn at random, by RandomNormalLike; .* for inference") as error:
        loaded(tmp_path, graph(nodes, 17))
    assert error.value.reason == "AnswersAtRandom"


def test_answers_of_nan_do_not_speak_of_batches(tmp_path: Path) -> None:
    """They are told, and judged, as those of any other model."""
    loaded(tmp_path, graph([helper.make_node("Log", ["pixels"], ["grown"])], 17))
