"""Biases that take back the mean of what rounded weights answer otherwise.

Nagel et al. 2019, arXiv 1906.04721: a layer that multiplies what it reads, x, with Q(W) in the place of W answers
otherwise by (Q(W) - W)·x, the mean of which over calibration data belongs into its bias. It is measured with a layer of
the weight W - Q(W) beside each, so that the zeros around what a convolution reads are counted as it reads them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from plimsoll_job.export.lean import LeanModel, Numbers, read_by
from plimsoll_job.load.data import Samples
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.layers import CONVOLUTIONS, LINEAR, Layer
from plimsoll_job.techniques.quantize.padding import find_padding_in_graph
from plimsoll_job.techniques.quantize.ranges.watch import Watching, watch
from plimsoll_job.techniques.quantize.refine.stored import restored_weights

#: Where a convolution and Gemm take their bias.
BIAS_INPUT = 2


@dataclass(frozen=True)
class Shifts:
    """What is to be added to the biases of layers, by their nodes, and why the others get nothing."""

    shifts: Mapping[str, NDArray[np.float32]]
    left: Mapping[str, str]


def mean_losses(model: FloatModel, quantized: LeanModel, layers: Collection[Layer], calibration: Samples) -> Shifts:
    """Return the mean of what each layer answers less in the quantized graph than in the model, for each output.

    The graph is what a scheme made of the model, its nodes still named. Of layers without a bias, convolutions get one,
    which costs nothing; a product would need an addition, and is left.
    """
    floats = model.lean()
    graph = floats.proto.graph
    restored = restored_weights(quantized, graph, layers)
    nodes = {node.name: node for node in graph.node}
    places = _Places(graph)
    left: dict[str, str] = {}
    losses: dict[str, tuple[onnx.NodeProto, Layer, Numbers]] = {}
    constants = {constant.name: constant for constant in graph.initializer}
    for layer in layers:
        if layer.operator not in CONVOLUTIONS | LINEAR:
            continue
        node = nodes[layer.node]
        if layer.node not in restored:
            left[layer.node] = "its weight is not stored in integers"
        elif places.of(node, layer) is None:
            left[layer.node] = "it has no bias"
        else:
            given = floats.source(constants[layer.weight])
            losses[node.output[0]] = node, layer, partial(_lost, given, restored[layer.node])
    if not losses:
        return Shifts({}, left)
    padding = find_padding_in_graph(model, list(losses), calibration)
    names = list(losses)
    sums = [np.zeros((2, 1))] * len(names)

    def add_weights(watched: LeanModel) -> None:
        for node, layer, numbers in losses.values():
            shape = tuple(constants[layer.weight].dims)
            watched.add(f"{node.name}_lost_weight", TensorProto.FLOAT, shape, numbers)

    def following(name: str, which: str | None) -> Watching:
        node, layer, _ = losses[name]
        return _beside(node, tuple(constants[layer.weight].dims), which)

    shared = [helper.make_tensor("lost_zero", TensorProto.FLOAT, [], [0.0])] if padding.layouts else []
    for found in watch(model, names, padding, calibration, following, constants=shared, change=add_weights):
        pairs = zip(found[::2], found[1::2], strict=True)
        sums = [before + np.array(pair, np.float64) for before, pair in zip(sums, pairs, strict=True)]
    shifts = {losses[name][1].node: _mean(*both) for name, both in zip(names, sums, strict=True)}
    for node, shift in shifts.items():
        if not np.isfinite(shift).all():
            left[node] = "what it answers is not finite"
    return Shifts({node: shift for node, shift in shifts.items() if node not in left}, left)


def shift_biases(model: LeanModel, shifts: Mapping[str, NDArray[np.float32]]) -> None:
    """Add to the biases of these nodes, each of which gets one of its own."""
    graph = model.proto.graph
    places = _Places(graph)
    constants = {constant.name: constant for constant in graph.initializer}
    for node in graph.node:
        shift = shifts.get(node.name)
        place = None if shift is None else places.of(node)
        if shift is None or place is None:
            continue
        owner, at = place
        before = constants.get(owner.input[at]) if at < len(owner.input) else None
        if before is None:
            name, shape, numbers = f"{node.name}_bias", shift.shape, partial(np.asarray, shift)
        else:
            name, shape = f"{before.name}_{node.name}_shifted", tuple(before.dims)
            numbers = partial(_sum, model.source(before), shift)
        model.add(name, TensorProto.FLOAT, shape, numbers)
        del owner.input[at : at + 1]
        owner.input.insert(at, name)
    model.drop_unread()


class _Places:
    """Where the nodes of a graph take their biases."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._constants = {constant.name: constant for constant in graph.initializer}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in read_by(node):
                self._readers[name].append(node)
        self._answers = {value.name for value in graph.output}

    def of(self, node: onnx.NodeProto, layer: Layer | None = None) -> tuple[onnx.NodeProto, int] | None:
        """Return the node that adds the bias, and which of its inputs that is or is to be; None where none does."""
        if layer is not None and (layer.stacked or node.input[1] != layer.weight):
            return None
        if node.op_type != "MatMul":
            given = node.input[BIAS_INPUT] if len(node.input) > BIAS_INPUT else ""
            may_get_one = not given and node.op_type in CONVOLUTIONS
            return (node, BIAS_INPUT) if may_get_one or given in self._constants else None
        [product] = node.output
        readers = self._readers[product]
        if len(readers) != 1 or readers[0].op_type != "Add" or product in self._answers:
            return None
        outputs = self._constants[node.input[1]].dims[-1]
        for at, name in enumerate(readers[0].input):
            bias = self._constants.get(name)
            if bias is not None and bias.dims and bias.dims[-1] == np.prod(bias.dims) == outputs:
                return readers[0], at
        return None


def _beside(node: onnx.NodeProto, shape: tuple[int, ...], which: str | None) -> Watching:
    """Return the layer of the lost weight, and the sums of what it answers and of how many answers, for each output."""
    lost = f"{node.name}_lost"
    product = onnx.NodeProto.FromString(node.SerializeToString())
    del product.input[BIAS_INPUT:]
    product.name, product.input[1], product.output[0] = lost, f"{lost}_weight", f"{lost}_all"
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1])
    nodes = [
        product,
        helper.make_node("Shape", [f"{lost}_all"], [f"{lost}_shape"]),
        helper.make_node("ConstantOfShape", [f"{lost}_shape"], [f"{lost}_ones"], value=one),
    ]
    of_convolution = node.op_type in CONVOLUTIONS
    # What lies beside the outputs, which are the last axis of linear layers.
    others = [0, *range(2, len(shape))] if of_convolution else [0]
    constants = [helper.make_tensor(f"{lost}_axes", TensorProto.INT64, [len(others)], others)]
    if not of_convolution:
        rows = [-1, shape[0] if _is_turned(node) else shape[1]]
        constants.append(helper.make_tensor(f"{lost}_rows", TensorProto.INT64, [2], rows))
    told = [f"{lost}_all_sum", f"{lost}_ones_sum"]
    for summed in told:
        value = summed.removesuffix("_sum")
        if which is not None:
            nodes.append(helper.make_node("Where", [which, value, "lost_zero"], [f"{value}_counted"]))
            value += "_counted"
        if not of_convolution:
            nodes.append(helper.make_node("Reshape", [value, f"{lost}_rows"], [f"{value}_rows"]))
            value += "_rows"
        nodes.append(helper.make_node("ReduceSum", [value, f"{lost}_axes"], [summed], keepdims=0))
    return Watching(nodes, told, TensorProto.FLOAT, constants)


def _is_turned(node: onnx.NodeProto) -> bool:
    return any(one.name == "transB" and one.i for one in node.attribute)


def _lost(given: Numbers, restored: Numbers) -> NDArray[Any]:
    lost: NDArray[Any] = given() - restored()
    return lost


def _mean(total: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float32]:
    return (total / np.maximum(1, count)).astype(np.float32)


def _sum(before: Numbers, shift: NDArray[np.float32]) -> NDArray[Any]:
    bias = before()
    summed: NDArray[Any] = bias + shift.reshape(bias.shape)
    return summed
