"""Channels of a graph that can be made smaller where they are computed and larger where they are read; answers stay.

From what computes them, channels are followed through operators that a positive factor passes unchanged, to all that
read them. Where one of those is no layer whose weight can take the factor back, they stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto

from plimsoll_job.export.lean import LeanModel
from plimsoll_job.techniques.quantize.refine.place import Factor, Graph, Place, Reader, Unfit, Where, attributes_of
from plimsoll_job.techniques.quantize.refine.ways import WAYS

#: What can take factors into its weight.
LAYERS = frozenset({"MatMul", "Gemm", "Conv"})
#: What normalises, then multiplies each channel with a number and may add another.
NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})
CHANNEL_NORMS = frozenset({"BatchNormalization", "InstanceNormalization"})


def vaguely_shaped(model: LeanModel) -> list[str]:
    """Return the names of values on the way of channels of whose shape the graph does not tell all that matters."""
    graph = Graph(model)
    passing = [node for node in graph.nodes if node.op_type in {*WAYS, *NORMS, *CHANNEL_NORMS}]
    names = [name for node in passing for name in (*node.input[:1], *node.output[:1]) if name not in graph.constants]
    return sorted({name for name in names if not graph.is_known(name) or not all(graph.shape(name))})


def find_places(
    model: LeanModel, shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[list[Place], dict[str, str]]:
    """Return the places whose channels can take factors, the last first, and why other layers' cannot, by their nodes.

    No two places have a reader in common. `shapes` are of values of which the graph does not tell them.
    """
    graph = Graph(model, shapes)
    found: list[Place] = []
    left: dict[str, str] = {}
    taken: set[str] = set()
    for node in reversed(graph.nodes):
        start = _start(graph, node)
        if start is None:
            continue
        place, at = start
        _check_own(graph, place)
        _follow(graph, node.output[0], at, place, {node.name})
        if place.unfit:
            left = dict.fromkeys(place.reading | place.refusing, place.unfit[0]) | left
        elif place.readers and not place.reading & taken:
            taken |= place.reading
            found.append(place)
    return found, {node: why for node, why in left.items() if node not in taken}


def _start(graph: Graph, node: onnx.NodeProto) -> tuple[Place, Where] | None:
    """Return the channels that the node computes, each by numbers of its own, and where it has them."""
    weight = graph.constant(node, 1)
    if node.op_type == "Mul":
        side = next((at for at in (0, 1) if graph.constant(node, at) is not None), None)
        constant = None if side is None else graph.constant(node, side)
        long = [at for at, size in enumerate(constant.dims) if size > 1] if constant is not None else []
        if constant is None or side is None or len(long) != 1 or constant.data_type != TensorProto.FLOAT:
            return None
        at = Where(long[0] - len(constant.dims))
        return Place(node.name, constant.dims[long[0]], [Factor(node.name, side, at)]), at
    if weight is None or weight.data_type != TensorProto.FLOAT:
        return None
    given = attributes_of(node)
    own = Where(-1)
    if node.op_type in NORMS and len(weight.dims) == 1 and len(node.output) == 1:
        at = Where(-1)
    elif node.op_type in CHANNEL_NORMS and graph.is_known(node.output[0]) and not given.get("training_mode"):
        at = Where(1 - len(graph.shape(node.output[0])))
    elif node.op_type == "Conv":
        at, own = Where(1 - len(weight.dims)), Where(-len(weight.dims))
    elif node.op_type in ("MatMul", "Gemm") and len(weight.dims) == 2:
        at, own = Where(-1), Where(-2 if given.get("transB") else -1)
    else:
        return None
    place = Place(node.name, weight.dims[own.axis], [Factor(node.name, 1, own)])
    if len(node.input) > 2 and node.input[2] and node.op_type != "MatMul":
        place.divided.append(Factor(node.name, 2, Where(-1)))
    return place, at


def _check_own(graph: Graph, place: Place) -> None:
    """Note where what is to be divided is no constant of its channels, or a weight that others read too."""
    for factor in place.divided:
        constant = graph.constant(graph.named[factor.node], factor.place)
        if constant is None:
            place.unfit.append("a bias is computed")
        elif len(constant.dims) < -factor.at.axis or constant.dims[factor.at.axis] != place.channels:
            place.unfit.append("a bias is not one of each channel")
        elif len(constant.dims) > 1 and len(graph.readers[constant.name]) > 1:
            place.unfit.append("the weight that computes its channels is read elsewhere too")


def _follow(graph: Graph, name: str, at: Where, place: Place, seen: set[str]) -> None:
    """Take in all that reads the value, and note what cannot take factors."""
    if name in graph.outputs:
        place.unfit.append("the model answers with its channels")
    for node in graph.readers[name]:
        if node.op_type == "Shape":
            continue
        way = WAYS.get(node.op_type)
        try:
            if node.name in seen or list(node.input).count(name) != 1:
                raise Unfit(f"a {node.op_type} reads its channels more than once")
            seen.add(node.name)
            if node.op_type in LAYERS:
                place.readers.append(_reader(graph, node, name, at))
                continue
            if way is None or len(node.output) != 1:
                raise Unfit(f"a {node.op_type} reads its channels too")
            further = way(graph, node, name, at, place)
        except Unfit as why:
            place.unfit.append(str(why))
            if node.op_type in LAYERS:
                place.refusing.add(node.name)
        else:
            _follow(graph, node.output[0], further, place, seen)


def _reader(graph: Graph, node: onnx.NodeProto, name: str, at: Where) -> Reader:
    weight, given = graph.constant(node, 1), attributes_of(node)
    unfit = Unfit(f"a {node.op_type} reads its channels that cannot take factors")
    if weight is None or node.input[0] != name or given.get("transA") or weight.data_type != TensorProto.FLOAT:
        raise unfit
    if len(graph.readers[weight.name]) > 1:
        raise Unfit("a weight that is multiplied with its channels is read elsewhere too")
    if node.op_type != "Conv":
        along = Where(-1 if given.get("transB") else -2, at.repeats)
        if at.axis != -1 or len(weight.dims) != 2:
            raise unfit
        return Reader(name, at, Factor(node.name, 1, along))
    rank, groups = len(weight.dims), given.get("group", 1)
    if at != Where(1 - rank):
        raise unfit
    if groups == 1:
        return Reader(name, at, Factor(node.name, 1, Where(1 - rank)))
    if weight.dims[1] != 1:
        raise Unfit("a convolution in groups reads its channels")
    return Reader(name, at, Factor(node.name, 1, Where(-rank, weight.dims[0] // groups)))
