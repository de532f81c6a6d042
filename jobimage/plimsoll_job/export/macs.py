"""Multiply-accumulates of an ONNX graph, of one sample: those of each node that multiplies and sums, by its name.

Convolutions count what their padding multiplies, as everywhere. A Mul by weights counts where a ReduceSum sums what it
makes; of other sums of products, such as weighted means and norms, nothing is counted, nor of normalisation,
activations, pooling, interpolation and other work element by element. Operators that are unknown
here, and may multiply and sum, are never taken for nothing: they make the whole unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from plimsoll_job.export.graph import before_readers
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.scratch import Scratch
from plimsoll_job.sessions import open_frugally

Shape = tuple[int, ...]
#: Shapes of a node's inputs, None of one that is not given, then that of its first output, and its attributes.
Rule = Callable[[Sequence[Shape | None], Shape, Mapping[str, Any]], int]
STANDARD = frozenset({"", "ai.onnx"})


@dataclass(frozen=True)
class Macs:
    """The multiply-accumulates of each node that has any, and why those of others are not known."""

    by_node: dict[str, int] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> int | None:
        """All of them, None where some are not known."""
        return None if self.unknown else sum(self.by_node.values())


def count_graph(model: LeanModel, sample: Mapping[str, np.ndarray[Any, Any]]) -> Macs:
    """Return the multiply-accumulates of one sample, from the shapes that the graph's values have of it.

    The nodes must have names.
    """
    graph = model.proto.graph
    summed = _summed_products(graph)
    counted = [node for node in graph.node if _name(node) in RULES or node.output[0] in summed]
    unknown = [why for node in graph.node if _name(node) not in RULES and (why := _why_unknown(node))]
    shapes = _shapes(model, [name for node in counted for name in (*node.input, node.output[0])], sample)
    by_node: dict[str, int] = {}
    for node in counted:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        inputs = [shapes.get(name) for name in node.input]
        try:
            rule = RULES.get(_name(node), _multiplied)
            by_node[node.name] = rule(inputs, shapes[node.output[0]], attributes)
        except _UntoldError as error:
            unknown.append(f"{node.op_type} {node.name}: {error}")
    return Macs(by_node, tuple(dict.fromkeys(unknown)))


def _summed_products(graph: onnx.GraphProto) -> set[str]:
    """Return the outputs of Mul by weights of which a ReduceSum sums numbers, laid out anew or not."""
    weights = {one.name for one in graph.initializer if math.prod(one.dims) > 1}
    made = {name: node for node in graph.node for name in node.output}
    found = set()
    for node in graph.node:
        if _name(node) != "ReduceSum":
            continue
        before = made.get(node.input[0])
        while before is not None and _name(before) in LAYS_OUT:
            before = made.get(before.input[0])
        if before is not None and _name(before) == "Mul" and weights & set(before.input):
            found.add(before.output[0])
    return found


def _multiplied(_: Sequence[Shape | None], output: Shape, __: Mapping[str, Any]) -> int:
    return math.prod(output)


def _shapes(model: LeanModel, names: Sequence[str], sample: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Shape]:
    """Return the shapes of these values: constants tell theirs, the runtime is asked for the others."""
    shapes = {one.name: tuple(one.dims) for one in model.proto.graph.initializer}
    asked = [name for name in dict.fromkeys(names) if name and name not in shapes]
    if not asked:
        return shapes
    told = LeanModel(onnx.ModelProto(), dict(model.numbers))
    told.proto.CopyFrom(model.proto)
    graph = told.proto.graph
    _forget_weights(told)
    # Their shapes alone are kept: the values themselves would all be held at once.
    graph.node.extend(helper.make_node("Shape", [name], [f"{name}/shape"]) for name in asked)
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(f"{name}/shape", TensorProto.INT64, None) for name in asked)
    scratch = Scratch()
    told.write(scratch.path / "told.onnx")
    session = open_frugally(scratch.path / "told.onnx", as_it_is=True)
    wanted = {one.name for one in session.get_inputs()}
    found = session.run(None, {name: array for name, array in sample.items() if name in wanted})
    return shapes | {name: tuple(map(int, shape)) for name, shape in zip(asked, found, strict=True)}


def _forget_weights(model: LeanModel) -> None:
    """Have zeros made where a large weight is read: shapes do not depend on it, and it is not in memory once more."""
    graph = model.proto.graph
    special = {name for node in graph.node if node.domain not in STANDARD for name in node.input}
    large = {
        one.name: tuple(one.dims)
        for one in graph.initializer
        if one.name in model.numbers and one.data_type == TensorProto.FLOAT and one.name not in special
    }
    kept = [one for one in graph.initializer if one.name not in large]
    dims = [numpy_helper.from_array(np.array(shape, np.int64), f"{name}/dims") for name, shape in large.items()]
    kept = [TensorProto.FromString(one.SerializeToString()) for one in (*kept, *dims)]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    model.numbers = {name: numbers for name, numbers in model.numbers.items() if name not in large}
    made = {name: [helper.make_node("ConstantOfShape", [f"{name}/dims"], [name])] for name in large}
    model.set_nodes(before_readers(graph.node, made))


class _UntoldError(Exception):
    """What a rule cannot tell of a node."""


def _given(inputs: Sequence[Shape | None], at: int) -> Shape:
    shape = inputs[at] if at < len(inputs) else None
    if shape is None:
        raise _UntoldError("a shape that it depends on is not known")
    return shape


def _product(left: int, transposed: str = "") -> Rule:
    """Count a product of matrices, or of stacks of them, whose left one is this input."""

    def count(inputs: Sequence[Shape | None], output: Shape, attributes: Mapping[str, Any]) -> int:
        matrix = _given(inputs, left)
        turned = bool(transposed and attributes.get(transposed)) and len(matrix) > 1
        return math.prod(output) * matrix[-2 if turned else -1]

    return count


def _convolution(weight: int) -> Rule:
    """Count a convolution whose weight, [outputs, inputs of a group, …kernel], is this input."""
    return lambda inputs, output, _: math.prod(output) * math.prod(_given(inputs, weight)[1:])


def _transposed_convolution(weight: int) -> Rule:
    """Count a convolution that spreads inputs over a kernel; its weight is [inputs, outputs of a group, …kernel]."""
    return lambda inputs, _, __: math.prod(_given(inputs, 0)) * math.prod(_given(inputs, weight)[1:])


def _recurrent(inputs: Sequence[Shape | None], _: Shape, __: Mapping[str, Any]) -> int:
    """Count the products of each step with all weights of all directions; peepholes multiply element by element."""
    rows = math.prod(_given(inputs, 0)[:2])
    return rows * (math.prod(_given(inputs, 1)) + math.prod(_given(inputs, 2)))


def _blocked(_: Sequence[Shape | None], output: Shape, attributes: Mapping[str, Any]) -> int:
    """Count a product whose weight is packed: its attribute K tells the width of what it reads."""
    return math.prod(output) * int(attributes["K"])


def _einsum(inputs: Sequence[Shape | None], _: Shape, attributes: Mapping[str, Any]) -> int:
    """Count a product for each combination of all indices, and for each operand but the first."""
    terms = attributes["equation"].decode().replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for at, term in enumerate(terms):
        shape = _given(inputs, at)
        before, dots, after = term.partition("...")
        middle = [f".{number}" for number in range(len(shape) - len(before) - len(after), 0, -1)] if dots else []
        for label, size in zip([*before, *middle, *after], shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    return math.prod(sizes.values()) * (len(terms) - 1)


def _attention(inputs: Sequence[Shape | None], output: Shape, attributes: Mapping[str, Any]) -> int:
    """Count scores and their product with the values, of queries, keys and values [batch, places, width]."""
    queries, keys, _ = (_given(inputs, at) for at in range(3))
    if len(queries) != 3 or len(keys) != 3 or any(inputs[6:8]):
        raise _UntoldError("it packs its keys, or takes those of places before")
    batch, places, width = queries
    return batch * places * keys[1] * (width + output[-1])


def _projecting_attention(inputs: Sequence[Shape | None], output: Shape, attributes: Mapping[str, Any]) -> int:
    """Count the projection of queries, keys and values too, by one weight [width, their widths]."""
    hidden, weight = _given(inputs, 0), _given(inputs, 1)
    if any(inputs[4:5]):
        raise _UntoldError("it takes keys of places before")
    batch, places, _ = hidden
    of_values = output[-1]
    of_queries = (weight[1] - of_values) // 2
    return batch * places * math.prod(weight) + batch * places * places * (of_queries + of_values)


#: How each operator that multiplies and sums is counted.
RULES: Mapping[str, Rule] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "DeformConv": _convolution(1),
    "ConvTranspose": _transposed_convolution(1),
    "Gemm": _product(0, "transA"),
    "MatMul": _product(0),
    "MatMulInteger": _product(0),
    "QLinearMatMul": _product(0),
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "com.microsoft.FusedConv": _convolution(1),
    "com.microsoft.NhwcFusedConv": _convolution(1),
    "com.microsoft.QLinearConv": _convolution(3),
    "com.microsoft.ConvTransposeWithDynamicPads": _transposed_convolution(1),
    "com.microsoft.FusedGemm": _product(0, "transA"),
    "com.microsoft.QGemm": _product(0, "transA"),
    "com.microsoft.FusedMatMul": _product(0, "transA"),
    "com.microsoft.FusedMatMulActivation": _product(0, "transA"),
    "com.microsoft.MatMulIntegerToFloat": _product(0),
    "com.microsoft.DynamicQuantizeMatMul": _product(0),
    "com.microsoft.MatMulNBits": _blocked,
    "com.microsoft.MatMulBnb4": _blocked,
    "com.microsoft.DynamicQuantizeLSTM": _recurrent,
    "com.microsoft.MultiHeadAttention": _attention,
    "com.microsoft.Attention": _projecting_attention,
}
#: Operators that hand on all numbers.
LAYS_OUT = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"})
#: Standard operators that multiply and sum in ways that are not counted here.
UNCOUNTED = frozenset({"Attention", "LinearAttention", "DFT", "STFT"})
#: Operators of other domains that work element by element, or move values.
FREE = frozenset(
    {"Gelu", "FastGelu", "BiasGelu", "QuickGelu", "BiasAdd", "BiasSoftmax", "BiasSplitGelu", "RotaryEmbedding"}
    | {"LayerNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization"}
    | {"SkipSimplifiedLayerNormalization", "GroupNorm", "SkipGroupNorm", "Trilu", "Pad", "Range", "Unique"}
    | {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QGather", "GatherBlockQuantized", "GatherND"}
    | {"QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QLinearLeakyRelu", "QLinearConcat"}
    | {"QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean", "QLinearWhere", "NhwcMaxPool"}
    | {"ArrayFeatureExtractor", "Binarizer", "CastMap", "CategoryMapper", "DictVectorizer", "FeatureVectorizer"}
    | {"Imputer", "LabelEncoder", "Normalizer", "OneHotEncoder", "Scaler", "ZipMap"}
)


def _name(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def _why_unknown(node: onnx.NodeProto) -> str | None:
    """Return why the node's multiply-accumulates are not known, None where it has none."""
    if node.domain not in STANDARD:
        return None if node.op_type in FREE else f"{node.op_type} {node.name} is an operator of {node.domain}"
    if node.op_type in UNCOUNTED:
        return f"{node.op_type} {node.name} is not counted"
    within = sorted({inner.op_type for inner in _branches(node) if _name(inner) in RULES or _why_unknown(inner)})
    return f"{', '.join(within)} within {node.op_type} {node.name} runs as often as its data says" if within else None


def _branches(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for attribute in node.attribute:
        for branch in (attribute.g, *attribute.graphs):
            yield from branch.node
