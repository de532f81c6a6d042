"""ONNX graphs as they come, made such that every tool after can take them: checked, named, of any batch."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, inliner

from plimsoll_job.boundary import check_passing
from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import NUMPY_NAMES, lift_constants, name_nodes, signature
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.load.architectures.chosen import OUTPUT_FIELD, choose_output, kind_of
from plimsoll_job.load.architectures.graph import FIELD, Given, GraphModule
from plimsoll_job.load.architectures.opset import is_old, modern
from plimsoll_job.load.onnx_file import tensors_of
from plimsoll_job.load.text import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS, TOKENS
from plimsoll_job.scratch import Scratch
from plimsoll_job.sessions import open_frugally

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulNBits", "GatherBlockQuantized")
QUANTIZED_PARTS = ("QLinear", "Integer", "QGemm", "QAttention", "Quantize")
NAMES_SHOWN = 5


def build_graph(model: LeanModel, output: str | None = None) -> GraphModule:
    """Return the model as a module that takes any batch and answers with this output; the model is changed.

    UserError for operators that are not known, control flow, sparse constants, numbers of another format than float32
    and what is quantized already, inputs that no data set gives, several outputs of which none is named, and
    what ONNX Runtime cannot load.
    """
    if model.proto.functions:
        model.proto = inliner.inline_local_functions(model.proto)
    classes = choose_output(model, output)
    _check_operators(model.proto)
    _write_scalers(model.proto.graph)
    lift_constants(model)
    name_nodes(model.proto)
    constants = {constant.name for constant in model.proto.graph.initializer}
    inputs = [value for value in model.proto.graph.input if value.name not in constants]
    del model.proto.graph.input[:]
    model.proto.graph.input.extend(inputs)
    given = Given(model) if is_old(model.proto) else None
    model.proto = modern(model.proto)
    _check_numbers(model.proto)
    _check_signature(model.proto)
    batch = _free_batch(model)
    _check_loads(model)
    return GraphModule(model, batch, classes, given)


def _check_operators(model: onnx.ModelProto) -> None:
    quantized = {node.op_type for node in model.graph.node if _is_quantized(node.op_type)}
    if quantized:
        raise UserError(
            f"{FIELD}: the model is quantized already ({_some(quantized)}); give the float model that it was made from",
            reason="AlreadyQuantized",
        )
    unknown = {f"{node.domain}:{node.op_type}" for node in model.graph.node if node.domain not in DOMAINS}
    if unknown:
        raise UserError(
            f"{FIELD}: operators {_some(unknown)} are not of ONNX and not of ONNX Runtime; export the model without "
            "custom operators",
            reason="UnknownOperator",
        )
    flow = {
        node.op_type
        for node in model.graph.node
        if node.op_type in CONTROL_FLOW or any(one.HasField("g") or one.graphs for one in node.attribute)
    }
    if flow:
        raise UserError(
            f"{FIELD}: the graph branches or loops ({_some(flow)}), which quantization cannot follow; export it by "
            "tracing, or fold what is constant first",
            reason="ControlFlow",
        )
    # ONNX Runtime would look for such constants' files in the directory that this process runs in.
    attributes = [one for node in model.graph.node for one in node.attribute]
    if model.graph.sparse_initializer or any(one.HasField("sparse_tensor") or one.sparse_tensors for one in attributes):
        raise UserError(
            f"{FIELD}: constants are stored sparse, which nothing after can read; export the model with dense ones",
            reason="SparseConstants",
        )


def _write_scalers(graph: onnx.GraphProto) -> None:
    """Have the first node of scikit-learn's pipelines in operators of ONNX itself, whose types are inferred."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if (node.domain, node.op_type) != ("ai.onnx.ml", "Scaler"):
            nodes.append(node)
            continue
        (value,), (answer,) = node.input, node.output
        given = {one.name: list(one.floats) for one in node.attribute}
        moved, offset, scale = (f"{answer}_{name}" for name in ("moved", "offset", "scale"))
        for name, numbers in ((offset, given.get("offset", [0.0])), (scale, given.get("scale", [1.0]))):
            graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [len(numbers)], numbers))
        nodes += [helper.make_node("Sub", [value, offset], [moved]), helper.make_node("Mul", [moved, scale], [answer])]
    del graph.node[:]
    graph.node.extend(nodes)


def _is_quantized(operator: str) -> bool:
    return operator in QUANTIZED or any(part in operator for part in QUANTIZED_PARTS)


def _check_numbers(model: onnx.ModelProto) -> None:
    """UserError when weights are of another format than float32: they would be computed, and compared, otherwise."""
    other = {
        NUMPY_NAMES.get(tensor.data_type) or TensorProto.DataType.Name(tensor.data_type).lower()
        for tensor in tensors_of(model)
        if len(tensor.dims) > 1 and tensor.data_type not in (TensorProto.FLOAT, *INTEGERS)
    }
    if other:
        raise UserError(
            f"{FIELD}: the weights are {_some(other)}; give the model as it was in float32", reason="AlreadyQuantized"
        )


#: Tables of places and masks, which are no weights.
INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def _check_signature(model: onnx.ModelProto) -> None:
    inputs, outputs = signature(model)
    kinds = {value.name: kind_of(value) for value in model.graph.input}
    text = INPUT_IDS in kinds and all(name in TOKENS and kind == "int64" for name, kind in kinds.items())
    if not text and list(kinds.values()) != ["float32"]:
        told = ", ".join(f"{name} of {kind}" for name, kind in kinds.items()) or "none"
        raise UserError(
            f"{FIELD}: the inputs are {told}; expected one of float32, or of text {INPUT_IDS}, with {ATTENTION_MASK} "
            f"and {TOKEN_TYPE_IDS} where it has them, of int64"
        )
    if outputs[0].dtype != "float32":
        raise UserError(
            f"{FIELD}: the output {outputs[0].name} is {kind_of(model.graph.output[0])}, expected a tensor of float32; "
            f"where the graph has another output, name that in {OUTPUT_FIELD}"
        )
    scalars = [one.name for one in inputs if not one.shape]
    if scalars:
        raise UserError(f"{FIELD}: the input {scalars[0]} has no axis of the batch in the graph")


def _check_loads(model: LeanModel) -> None:
    """UserError when the model is not one of ONNX, or ONNX Runtime refuses it."""
    scratch = Scratch()
    path = scratch.path / "model.onnx"
    model.write_apart(path)
    # What it raises shares no public base class.
    try:
        onnx.checker.check_model(str(path))
        open_frugally(path)
    except Exception as error:
        check_passing(error)
        why = str(error).replace(f" from {path}", "")
        raise UserError(f"{FIELD}: ONNX Runtime cannot load the model: {why}", reason="NotLoadable") from error


def _free_batch(model: LeanModel) -> int | None:
    """Let the first axis of inputs and outputs be of any size; return the size that it was fixed to, if it was.

    Where a reshape has that size written into it, it takes the size of what it reshapes, unless that is a constant.
    """
    graph = model.proto.graph
    first = [value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output)]
    for axis in (axis for axes in first for axis in axes if axis.HasField("dim_value") and axis.dim_value < 1):
        # How some exporters write a free axis.
        axis.Clear()
    batch = int(first[0][0].dim_value) if first[0] and first[0][0].HasField("dim_value") else None
    for axes in first:
        if axes:
            axes[0].Clear()
            axes[0].dim_param = "batch"
    del graph.value_info[:]
    if batch is None:
        return None
    constants = {constant.name: constant for constant in graph.initializer}
    for node in graph.node:
        reshapes = node.op_type == "Reshape" and node.input[0] not in constants
        shape = constants.get(node.input[1]) if reshapes else None
        sizes = [] if shape is None else model.array(shape).tolist()
        if (
            len(sizes) > 1
            and sizes[0] == batch
            and not any(one.name == "allowzero" and one.i for one in node.attribute)
        ):
            name = f"{node.name}_shape"
            graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(sizes)], [0, *sizes[1:]]))
            node.input[1] = name
    return batch


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:NAMES_SHOWN]) + (f" and {len(listed) - NAMES_SHOWN} more" if len(listed) > 5 else "")
