"""Where channels lie behind operators that a positive factor of each passes through unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import onnx
from onnx import TensorProto

from plimsoll_job.techniques.quantize.refine.place import Factor, Graph, Place, Unfit, Where, attributes_of

#: Where the channels of a value, that of the name, lie in what the node makes of it; Unfit where they do not.
Way = Callable[[Graph, onnx.NodeProto, str, Where, Place], Where]

#: Of each channel alone, and a factor passes through.
ELEMENTWISE = frozenset({"Relu", "LeakyRelu", "Identity", "Abs"})
POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceMax"})
RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def _same(graph: Graph, node: onnx.NodeProto, name: str, at: Where, place: Place) -> Where:
    return at


def _pooled(graph: Graph, node: onnx.NodeProto, name: str, at: Where, place: Place) -> Where:
    if at.axis != 1 - len(graph.shape(name)):
        raise Unfit(f"a {node.op_type} pools over its channels")
    return at


def _reduced(graph: Graph, node: onnx.NodeProto, name: str, at: Where, place: Place) -> Where:
    rank, given = len(graph.shape(name)), attributes_of(node)
    axes = given.get("axes") or (graph.numbers(node.input[1]) if len(node.input) > 1 else range(rank))
    over = {axis - rank if axis >= 0 else axis for axis in axes}
    if at.axis in over:
        raise Unfit(f"a {node.op_type} adds its channels up")
    return at if given.get("keepdims", 1) else Where(at.axis + sum(axis > at.axis for axis in over), at.repeats)


def _transposed(graph: Graph, node: onnx.NodeProto, name: str, at: Where, place: Place) -> Where:
    rank = len(graph.shape(name))
    order = attributes_of(node).get("perm") or list(reversed(range(rank)))
    return Where(list(order).index(rank + at.axis) - rank, at.repeats)


def _reshaped(graph: Graph, node: onnx.NodeProto, name: str, at: Where, place: Place) -> Where:
    """Channels stay whole where as many numbers follow them as before, or become neighbours along the last axis."""
    before, after = graph.shape(name), graph.shape(node.output[0])
    size, behind = before[at.axis], before[at.axis :][1:]
    if size and all(behind):
        for axis in range(-len(after), 0):
            if after[axis] == size and all(after[axis:]) and math.prod(after[axis:]) == size * math.prod(behind):
                return Where(axis, at.repeats)
        if after and after[-1] == size * math.prod(behind):
            return Where(-1, at.repeats * math.prod(behind))
    raise Unfit(f"a {node.op_type} mixes its channels")


def _chosen(graph: Graph, node: onnx.NodeProto, name: str, at: Where, place: Place) -> Where:
    """What picks positions along other axes, all of them before that of the channels."""
    rank = len(graph.shape(name))
    if node.op_type == "Gather":
        axes = [attributes_of(node).get("axis", 0)]
    else:
        axes = graph.numbers(node.input[3]) if len(node.input) > 3 else list(range(rank))
    if node.input[0] != name or any((axis - rank if axis >= 0 else axis) >= at.axis for axis in axes):
        raise Unfit(f"a {node.op_type} picks among its channels")
    return at


def _multiplied(graph: Graph, node: onnx.NodeProto, name: str, at: Where, place: Place) -> Where:
    if node.op_type == "Div" and node.input[0] != name:
        raise Unfit("a Div divides by its channels")
    if graph.shape(node.output[0])[at.axis] != place.channels * at.repeats:
        raise Unfit(f"a {node.op_type} spreads its channels")
    return at


def _added(graph: Graph, node: onnx.NodeProto, name: str, at: Where, place: Place) -> Where:
    """A constant that is added takes the factors too."""
    other = 1 - list(node.input).index(name)
    constant = graph.constant(node, other)
    if constant is None:
        raise Unfit("an Add of what is computed reads its channels")
    if len(constant.dims) < -at.axis or constant.dims[at.axis] != place.channels * at.repeats:
        raise Unfit("one number is added to all its channels")
    if constant.data_type != TensorProto.FLOAT:
        raise Unfit("what is added to its channels is no Float32")
    place.divided.append(Factor(node.name, other, at))
    return at


WAYS: Mapping[str, Way] = {
    **dict.fromkeys(ELEMENTWISE, _same),
    **dict.fromkeys(POOLS, _pooled),
    **dict.fromkeys(REDUCTIONS, _reduced),
    **dict.fromkeys(RESHAPES, _reshaped),
    **dict.fromkeys(("Gather", "Slice"), _chosen),
    **dict.fromkeys(("Mul", "Div"), _multiplied),
    "Transpose": _transposed,
    "Add": _added,
}
