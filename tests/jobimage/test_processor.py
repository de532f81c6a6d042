"""What a processor is called and can do, and what graphs ask of it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.jobimage.haswell import Haswell, Serve

from plimsoll_api.artifact import ProcessorFeature
from plimsoll_job.export.integers import SAFE_WEIGHT, required_features
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.processor import instruction_sets, lacking, largest_products, processor_features, processor_name

X86 = "processor\t: 0\nmodel name\t: AMD EPYC 7B13\nflags\t\t: fpu sse4_1 avx avx2 fma\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("told", "name", "sets"),
    [(X86, "AMD EPYC 7B13", ["sse4_1", "avx", "avx2", "fma"]), (ARM, None, ["asimd", "asimddp", "i8mm"])],
)
def test_a_processor_is_called_by_its_name_with_its_instruction_sets(
    told: str, name: str | None, sets: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(told)
    assert instruction_sets(file) == sets
    assert name in (None, processor_name(file))
    assert processor_name(tmp_path / "missing")
    assert instruction_sets(tmp_path / "missing") == []


def test_this_processor_has_what_its_flags_say() -> None:
    told = {"avx512_vnni", "avx_vnni", "asimd"} & set(instruction_sets())
    assert lacking([]) == []
    assert lacking([ProcessorFeature.VNNI]) == ([] if told else [ProcessorFeature.VNNI])
    assert processor_features() == ({ProcessorFeature.VNNI} if told else set())


@pytest.mark.slow
def test_a_processor_without_vnni_is_told_by_what_it_computes(haswell: Haswell) -> None:
    graph, rows, sums = largest_products()
    assert sums.max() == 255 * 127 * 64
    assert not np.array_equal(haswell(graph, {"rows": rows}), sums)


def graph_of(
    nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]], columns: int, kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return model


def static(weights: NDArray[Any], *, moved: bool = False, activations: bool = True) -> onnx.ModelProto:
    """Return a product in the form of quantize and dequantize, by weights that may be transposed on their way."""
    rounded = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
    ]
    nodes = [
        *(rounded if activations else [helper.make_node("Identity", ["x"], ["d"])]),
        helper.make_node("DequantizeLinear", ["w", "scale", "middle"], ["v"]),
        helper.make_node("Transpose", ["v"], ["t"], perm=[1, 0] if moved else [0, 1]),
        helper.make_node("MatMul", ["d", "t"], ["y"]),
    ]
    constants = {
        "step": np.float32(1), "zero": np.uint8(0), "scale": np.float32(1), "middle": np.zeros((), weights.dtype),
        "w": weights.T if moved else weights,
    }  # fmt: skip
    return graph_of(nodes, {name: np.asarray(value) for name, value in constants.items()}, len(weights))


def dynamic(weights: NDArray[Any]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "step", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["y"]),
    ]
    return graph_of(nodes, {"w": weights}, len(weights), TensorProto.INT32)


def embedding(table: NDArray[Any]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["w", "ids"], ["rows"]),
        helper.make_node("DequantizeLinear", ["rows", "scale", "middle"], ["y"]),
    ]
    constants = {"w": table, "scale": np.asarray(np.float32(1)), "middle": np.zeros((), np.int8)}
    return graph_of(nodes, constants, 2)


def full(largest: int, kind: Any = np.int8) -> NDArray[Any]:
    return np.full((64, 32), largest, kind)


VNNI = [ProcessorFeature.VNNI]


@pytest.mark.parametrize(
    ("model", "required"),
    [
        (static(full(127)), VNNI),
        (static(full(SAFE_WEIGHT + 1)), VNNI),
        (static(full(-SAFE_WEIGHT - 1), moved=True), VNNI),
        (dynamic(full(127)), VNNI),
        (static(full(SAFE_WEIGHT)), []),
        (static(full(-SAFE_WEIGHT)), []),
        (dynamic(full(SAFE_WEIGHT)), []),
        (static(full(255, np.uint8)), []),
        (static(full(127), activations=False), []),
        (embedding(full(127)), []),
    ],
)
def test_a_graph_asks_for_vnni_where_its_sums_saturate_without(
    model: onnx.ModelProto, required: list[ProcessorFeature]
) -> None:
    assert required_features(LeanModel(model)) == required


@pytest.mark.parametrize(
    "model",
    [static(full(SAFE_WEIGHT)), static(full(-SAFE_WEIGHT), moved=True), static(full(255, np.uint8)), dynamic(full(64))],
)
def test_what_asks_for_nothing_is_exact_on_each_processor(model: onnx.ModelProto, serve: Serve) -> None:
    rows = np.full((5, 64), 255, np.float32)
    weights = numpy_helper.to_array(next(one for one in model.graph.initializer if one.name == "w"))
    assert np.array_equal(serve(model.SerializeToString(), {"x": rows}), np.full((5, 32), 255.0 * 64 * weights.max()))


@pytest.mark.slow
def test_what_asks_for_vnni_is_wrong_without(haswell: Haswell) -> None:
    rows = np.full((5, 64), 255, np.float32)
    answers = haswell(static(full(127)).SerializeToString(), {"x": rows})
    assert answers.max() < 0.6 * 255 * 64 * 127
