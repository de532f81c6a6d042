"""Linear layers however a graph writes them: int8 answers near to float, where ONNX Runtime's quantizer raised."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.jobimage.bench import samples_of
from tests.jobimage.graphs import load, save

from plimsoll_api.sources import Task
from plimsoll_api.spec import Quantize
from plimsoll_job.load.signature import signature_of
from plimsoll_job.progress import Reporter
from plimsoll_job.sessions import open_session
from plimsoll_job.techniques.quantize import apply
from plimsoll_job.techniques.shape import Bench, Candidate

CHANCE = np.random.default_rng(0)
WEIGHT = CHANCE.normal(size=(64, 48))
BIAS = CHANCE.normal(size=48) * 5
SQUARE = CHANCE.normal(size=(48, 48))


def gemm(source: str, weight: str, bias: str, target: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Gemm", [source, weight, bias], [target], name=target, **attributes)


def graph(nodes: list[onnx.NodeProto], **constants: NDArray[Any] | list[Any]) -> onnx.ModelProto:
    """Return a model that takes x [batch, 64] and answers with y [batch, 48]."""
    of_float = {name: np.array(value) for name, value in constants.items()}
    stored = [
        numpy_helper.from_array(value.astype(np.int64 if value.dtype.kind == "i" else np.float32), name)
        for name, value in of_float.items()
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 64), ("y", 48))
    ]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


ONE = [gemm("x", "w", "b", "y")]
GRAPHS = {
    "a bias [1, N]": graph(ONE, w=WEIGHT, b=BIAS[None]),
    "a bias of one number": graph(ONE, w=WEIGHT, b=[5.0]),
    "a bias [1, 1]": graph(ONE, w=WEIGHT, b=[[5.0]]),
    "a bias that is a scalar": graph(ONE, w=WEIGHT, b=np.array(5.0)),
    "factors": graph([gemm("x", "w", "b", "y", alpha=0.5, beta=3.0)], w=WEIGHT, b=BIAS[None]),
    "one bias of two layers": graph(
        [gemm("x", "w", "b", "z"), gemm("z", "v", "b", "y", transB=1)], w=WEIGHT, v=SQUARE, b=BIAS[None]
    ),
    "one weight read along both axes": graph(
        [gemm("x", "w", "b", "z"), gemm("z", "w", "c", "u", transB=1), gemm("u", "w", "b", "y")],
        w=WEIGHT, b=BIAS, c=CHANCE.normal(size=64),
    ),
    "a bias of each row": graph(
        [
            # No more than zero of the samples, so that it is not computed before.
            helper.make_node("ReduceMean", ["x"], ["mean"], name="mean", axes=[0]),
            helper.make_node("Mul", ["mean", "zero"], ["none"], name="none"),
            helper.make_node("Add", ["rows", "none"], ["given"], name="given"),
            gemm("given", "w", "b", "r"),
            helper.make_node("ReduceSum", ["r", "axis"], ["s"], name="s"),
            gemm("x", "w", "c", "z"),
            helper.make_node("Add", ["z", "s"], ["y"], name="y"),
        ],
        axis=[0], zero=[0.0], rows=CHANCE.normal(size=(3, 64)), w=WEIGHT, b=CHANCE.normal(size=(3, 48)), c=BIAS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("scheme", ["Int8Static", "Int8Dynamic"])
@pytest.mark.parametrize("kind", GRAPHS)
def test_int8_takes_linear_layers_however_they_are_written(kind: str, scheme: str, tmp_path: Path) -> None:
    save(tmp_path, GRAPHS[kind])
    source = load(tmp_path)
    samples = replace(samples_of((64,), 64), labels=None)
    samples = replace(samples, inputs={"x": samples.inputs["inputs"]})
    signature = signature_of(source.module, {"spec.data.calibration": samples}, Task.TABULAR_CLASSIFICATION)
    bench = Bench(
        source, signature, None, samples, 0, "spec.steps[0].quantize", Reporter(emit=lambda _: None),
        task=Task.TABULAR_CLASSIFICATION,
    )  # fmt: skip
    expected = open_session(GRAPHS[kind].SerializeToString(), 1).run(None, dict(samples.inputs))[0]
    applied = apply(Quantize.model_validate({"scheme": scheme}), Candidate(source.module), bench)
    assert {row["dtype"] for row in applied.details["layers"]} == {"int8"}
    assert applied.candidate.graph is not None
    given = open_session(applied.candidate.graph.path, 1).run(None, dict(samples.inputs))[0]
    # Rounding alone: on processors that saturate too, and a wrong bias or factor would be as large as the answers.
    assert np.abs(given - expected).mean() < 0.1 * np.abs(expected).mean()
