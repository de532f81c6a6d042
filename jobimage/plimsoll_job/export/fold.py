"""What a traced graph computes of constants alone, computed before it is written, one constant at a time.

Layers are looked for by their constant weights, and a batch norm after a convolution is a part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from plimsoll_job.export.graph import lift_constants, rename
from plimsoll_job.export.lean import LeanModel, Numbers
from plimsoll_job.sessions import open_session

#: What is computed here: operators whose result is not much larger than what they read.
FOLDED = frozenset(
    {"Add", "Cast", "Concat", "Div", "Equal", "Gather", "Greater", "Less", "Mul", "Neg", "Not", "ReduceSum", "Reshape"}
    | {"Shape", "Slice", "Softmax", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"}
)


def fold(model: LeanModel) -> None:
    """Replace what is constant in the model by constants; names of the nodes that stay are kept.

    A constant that other nodes read as it is would be stored twice, and is left to the runtime.
    """
    lift_constants(model)
    _skip_identities(model)
    _fold_nodes(model)
    _skip_identities(model)
    _fold_norms(model)
    model.drop_unread()


def _skip_identities(model: LeanModel) -> None:
    """Let nodes read constants themselves: of equal ones the exporter makes one, and identities of it."""
    graph = model.proto.graph
    same = {constant.name: constant.name for constant in graph.initializer}
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.input[0] in same and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    model.set_nodes(kept)
    # What branches and loops read too.
    rename(model.proto.graph, same)


def _fold_nodes(model: LeanModel) -> None:
    graph = model.proto.graph
    opsets = list(model.proto.opset_import)
    constants = {constant.name: constant for constant in graph.initializer}
    foldable = _foldable(graph.node, set(constants))
    stay = {name for node in graph.node if node.output[0] not in foldable for name in node.input}
    stay |= {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        twice = any(name in stay and name in model.numbers for name in node.input)
        if node.output[0] not in foldable or twice or not all(name in constants for name in node.input if name):
            kept.append(node)
            continue
        given = [constants[name] for name in node.input if name]
        name, own = node.output[0], onnx.NodeProto()
        own.CopyFrom(node)
        if node.op_type == "Transpose" and given[0].name in model.numbers:
            source = model.numbers[given[0].name]
            axes = _attribute(node, "perm", list(reversed(range(len(given[0].dims)))))
            shape = tuple(given[0].dims[axis] for axis in axes)
            model.add(name, given[0].data_type, shape, partial(transposed, source, axes))
        else:
            inputs = {one.name: model.source(one) for one in given}
            numbers = partial(_computed, own, opsets, inputs)
            array = numbers()
            model.add(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, numbers)
        constants[name] = graph.initializer[-1]
    model.set_nodes(kept)


def _foldable(nodes: Sequence[onnx.NodeProto], constant: set[str]) -> set[str]:
    """Return the outputs of the nodes that read constants only; `constant` names those that there are."""
    found: set[str] = set()
    for node in nodes:
        known = all(not name or name in constant or name in found for name in node.input)
        if known and node.op_type in FOLDED and len(node.output) == 1:
            found.add(node.output[0])
    return found


def transposed(source: Numbers, axes: Sequence[int]) -> NDArray[Any]:
    """Return the numbers with their axes in this order."""
    return np.ascontiguousarray(source().transpose(axes))


def _computed(node: onnx.NodeProto, opsets: Sequence[Any], inputs: dict[str, Numbers]) -> NDArray[Any]:
    """Return what ONNX Runtime computes of the arrays by the node."""
    arrays = {name: numbers() for name, numbers in inputs.items()}
    taken = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in arrays.items()
    ]
    graph = helper.make_graph([node], "node", taken, [onnx.ValueInfoProto(name=node.output[0])])
    content = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    result: NDArray[Any] = np.asarray(open_session(content, threads=1).run(None, arrays)[0])
    return result


def _fold_norms(model: LeanModel) -> None:
    """Make each batch norm that alone reads a convolution's output a part of the convolution."""
    graph = model.proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    convolutions = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    reads = Counter(name for node in graph.node for name in node.input) + Counter(one.name for one in graph.output)
    kept = []
    for node in graph.node:
        before = convolutions.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        known = before is not None and all(name in constants for name in (*node.input[1:5], *before.input[1:]))
        if before is None or not known or reads[before.output[0]] > 1 or reads[before.input[1]] > 1:
            kept.append(node)
            continue
        gain, offset, mean, variance = (model.array(constants[name]) for name in node.input[1:5])
        scale = gain / np.sqrt(variance + np.float32(_attribute(node, "epsilon", 1e-5)))
        bias = model.array(constants[before.input[2]]) if len(before.input) > 2 else np.float32(0)
        weight, name = constants[before.input[1]], node.output[0]
        numbers = partial(_scaled, model.source(weight), scale)
        model.add(f"{name}_weight", TensorProto.FLOAT, tuple(weight.dims), numbers)
        model.add(f"{name}_bias", TensorProto.FLOAT, scale.shape, partial(np.asarray, (bias - mean) * scale + offset))
        before.input[:] = [before.input[0], f"{name}_weight", f"{name}_bias"]
        before.output[:] = [name]
    model.set_nodes(kept)


def _scaled(source: Numbers, scale: NDArray[Any]) -> NDArray[Any]:
    weight = source()
    scaled: NDArray[Any] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return scaled


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)
