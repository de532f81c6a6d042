"""What we read from and do to an ONNX graph, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import chain

import onnx

from plimsoll_api.artifact import Tensor
from plimsoll_job.export.lean import LeanModel, branches_of, read_by, stored

NUMPY_NAMES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.BOOL: "bool",
}


def strip(lean: LeanModel) -> None:
    """Take out of the model what no runtime reads: notes, inferred shapes, spare constants, long names.

    Names of inputs and outputs stay: they are the model's signature.
    """
    model = lean.proto
    model.producer_name, model.producer_version, model.doc_string = "plimsoll", "", ""
    del model.metadata_props[:]
    graph = model.graph
    graph.name, graph.doc_string = "model", ""
    del graph.value_info[:], graph.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    _merge_constants(lean)
    _shorten_names(lean)


def sorted_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes in an order in which each comes after those that it reads from, as the format wants them."""
    makers = {name: at for at, node in enumerate(graph.node) for name in node.output}
    reads = {at: {makers[name] for name in read_by(node) if name in makers} for at, node in enumerate(graph.node)}
    return [graph.node[at] for at in TopologicalSorter(reads).static_order()]


def before_readers(
    nodes: Iterable[onnx.NodeProto], makers: Mapping[str, Sequence[onnx.NodeProto]]
) -> list[onnx.NodeProto]:
    """Return the nodes, with what makes each of these names right before the first of them that reads it.

    What is made in the order of the nodes is then held for one of them, not for all.
    """
    left, placed = dict(makers), list[onnx.NodeProto]()
    for node in nodes:
        for name in read_by(node):
            placed += left.pop(name, ())
        placed.append(node)
    return [*placed, *chain.from_iterable(left.values())]


def signature(model: onnx.ModelProto) -> tuple[list[Tensor], list[Tensor]]:
    """Return the inputs and the outputs of the model; the batch is null in their shapes."""
    constants = {constant.name for constant in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    return [_tensor(value) for value in inputs], [_tensor(value) for value in model.graph.output]


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operator set."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def name_nodes(model: onnx.ModelProto) -> None:
    """Give a name to each node that has none, and to each whose name is taken."""
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{number}"
        taken.add(node.name)


def module_of(node: str, modules: Collection[str]) -> str:
    """Return the name of the module whose call made the node, the node's own name where none is known.

    The exporter writes the way to a node as /features/features.0/Conv: a part repeats the end of the name before it
    where the modules lie in a sequence, and containers that are not called themselves may be missing at the beginning.
    """
    way: list[str] = []
    for part in node.strip("/").split("/")[:-1]:
        names = part.split(".")
        repeated = next((count for count in range(len(names) - 1, 0, -1) if way[-count:] == names[:count]), 0)
        way += names[repeated:]
    while way:
        name = ".".join(way)
        found = [module for module in modules if module == name] or [
            module for module in modules if module.endswith(f".{name}")
        ]
        if len(found) == 1:
            return found[0]
        way.pop()
    return node


def lift_constants(lean: LeanModel) -> None:
    """Make constants of the nodes that are one: weights are looked for among constants."""
    graph, kept = lean.proto.graph, []
    for node in graph.node:
        values = [one.t for one in node.attribute if one.name == "value" and one.HasField("t")]
        if node.op_type == "Constant" and values:
            values[0].name = node.output[0]
            graph.initializer.append(values[0])
        else:
            kept.append(node)
    lean.set_nodes(kept)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = [dimension.dim_value if dimension.HasField("dim_value") else None for dimension in kind.shape.dim]
    return Tensor(name=value.name, dtype=NUMPY_NAMES.get(kind.elem_type, str(kind.elem_type)), shape=shape)


def _merge_constants(lean: LeanModel) -> None:
    """Keep one of each group of equal constants, and none that no node reads."""
    graph = lean.proto.graph
    first_of: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    # By the digest of its numbers: a map that holds them all would be the weights once more.
    renamed: dict[str, str] = {}
    used = {name for node in graph.node for name in read_by(node)} | {value.name for value in graph.output}
    spare = []
    for index, constant in enumerate(graph.initializer):
        if constant.name in used:
            numbers = hashlib.sha256(stored(lean.array(constant))).digest()
            first = first_of.setdefault((constant.data_type, tuple(constant.dims), numbers), constant.name)
            renamed[constant.name] = first
        if renamed.get(constant.name) != constant.name:
            spare.append(index)
    for index in reversed(spare):
        lean.numbers.pop(graph.initializer[index].name, None)
        del graph.initializer[index]
    rename(graph, renamed)


def _shorten_names(lean: LeanModel) -> None:
    graph = lean.proto.graph
    signature_names = {value.name for value in (*graph.input, *graph.output)}
    names = dict.fromkeys(_names(graph))
    # Names within branches and loops stay: what is outside may not have them.
    within = (branch for node in graph.node for branch in branches_of(node))
    signature_names |= {name for branch in within for name in _names(branch)} - {*names}
    free = (
        short
        for short in (f"t{number}" for number in range(len(names) + len(signature_names)))
        if short not in signature_names
    )
    renamed = {name: next(free) for name in names if name and name not in signature_names}
    for constant in graph.initializer:
        constant.name = renamed.get(constant.name, constant.name)
    lean.numbers = {renamed.get(name, name): numbers for name, numbers in lean.numbers.items()}
    rename(graph, renamed)
    for node in graph.node:
        node.name = ""


def _names(graph: onnx.GraphProto) -> Iterable[str]:
    for constant in graph.initializer:
        yield constant.name
    for node in graph.node:
        yield from node.input
        yield from node.output


def rename(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    """Let the nodes, those of branches and loops too, call values by other names; those of the signature stay."""
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        for branch in branches_of(node):
            rename(branch, renamed)
            for value in branch.output:
                value.name = renamed.get(value.name, value.name)
