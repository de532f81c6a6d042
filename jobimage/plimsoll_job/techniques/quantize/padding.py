"""Where padding is in values of an ONNX graph, found as in torch: other values there leave the answers as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from plimsoll_job.load.data import Samples
from plimsoll_job.scratch import Scratch
from plimsoll_job.sessions import open_frugally
from plimsoll_job.techniques.layout import Layout, layouts_of, settle
from plimsoll_job.techniques.padding import Padding, differ, typical
from plimsoll_job.techniques.quantize.fidelity import counted
from plimsoll_job.techniques.quantize.float_model import FloatModel

LARGEST = float(np.finfo(np.float32).max)


def find_padding_in_graph(model: FloatModel, names: Sequence[str], samples: Samples) -> Padding:
    """Return where padding is in these values of the graph, which are floats, as a few of the samples show it."""
    if samples.mask is None:
        return Padding()
    probe = typical(samples)
    mask = probe.mask
    assert mask is not None  # noqa: S101 — of padded samples
    shapes, fewer = shapes_of(model, names, [probe, probe.take(slice(0, max(1, len(mask) - 1)))])
    # An axis may happen to be as long as there are samples; with fewer of them it is as long as before.
    candidates = {
        name: [
            layout
            for layout in layouts_of(shape, len(mask), mask.shape[1])
            if layout.fits(fewer[name], max(1, len(mask) - 1), mask.shape[1])
        ]
        for name, shape in shapes.items()
    }
    candidates = {name: some for name, some in candidates.items() if some}
    if not candidates:
        return Padding(share=1 - float(samples.mask.mean()))
    scratch = Scratch()
    changed = model.lean()
    _exchange(changed.proto.graph, candidates)
    changed.write_apart(scratch.path / "exchanged.onnx")
    session = open_frugally(scratch.path / "exchanged.onnx", as_it_is=True)

    def answered(asked: Mapping[str, Layout]) -> torch.Tensor:
        whole = {name: np.ones([1] * len(shapes[name]), dtype=np.bool_) for name in candidates}
        held = whole | {name: layout.counted(mask) for name, layout in asked.items()}
        feeds = dict(probe.inputs) | {f"{name}_counted": which for name, which in held.items()}
        return torch.from_numpy(counted(session.run(None, feeds)[0], mask))

    expected = answered({})
    layouts = settle(candidates, lambda asked: not differ(answered(asked), expected))
    read = tuple(name for name in candidates if name not in layouts)
    return Padding(layouts, read, 1 - float(samples.mask.mean()))


def after_each(graph: onnx.GraphProto, following: Mapping[str, Sequence[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    """Yield the graph's nodes in order, those that follow a value right behind it, so that it need not stay."""
    for value in graph.input:
        yield from following.get(value.name, ())
    for node in graph.node:
        yield node
        for name in node.output:
            yield from following.get(name, ())


def replace_nodes(graph: onnx.GraphProto, nodes: Iterator[onnx.NodeProto]) -> None:
    """Give the graph these nodes, some of which may be its own."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def shapes_of(model: FloatModel, names: Collection[str], probes: Sequence[Samples]) -> list[dict[str, tuple[int, ...]]]:
    """Return the shape of each value of the graph when each of the probes is answered."""
    scratch = Scratch()
    watched = model.lean()
    graph = watched.proto.graph
    replace_nodes(graph, after_each(graph, {name: [_node("Shape", [name], f"{name}_shape")] for name in names}))
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(f"{name}_shape", TensorProto.INT64, [None]) for name in names)
    watched.write_apart(scratch.path / "shapes.onnx")
    session = open_frugally(scratch.path / "shapes.onnx", as_it_is=True)
    found: list[list[NDArray[np.int64]]] = [session.run(None, dict(probe.inputs)) for probe in probes]
    return [{name: tuple(shape.tolist()) for name, shape in zip(names, some, strict=True)} for some in found]


def _exchange(graph: onnx.GraphProto, names: Mapping[str, Sequence[Layout]]) -> None:
    """Have every reader of each value read any others of its size where it does not count, as inputs tell."""
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name in names:
                node.input[at] = f"{name}_exchanged"
    for output in graph.output:
        if output.name in names:
            output.name = f"{output.name}_exchanged"
    replace_nodes(graph, after_each(graph, {name: _exchanged(name, seed) for seed, name in enumerate(names)}))
    graph.initializer.extend(limits())
    for name, layouts in names.items():
        add_mask(graph, f"{name}_counted", layouts[0])


def add_mask(graph: onnx.GraphProto, name: str, layout: Layout) -> None:
    """Add the input that tells which positions of values of this layout count."""
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.BOOL, [None] * len(layout.axes)))


def limits() -> list[onnx.TensorProto]:
    """Return the numbers that `ends_of` reads where a value does not count."""
    ends = (("largest_float", LARGEST), ("least_float", -LARGEST))
    return [helper.make_tensor(name, TensorProto.FLOAT, [], [end]) for name, end in ends]


def _exchanged(name: str, seed: int) -> list[onnx.NodeProto]:
    low, high, chance = f"{name}_low", f"{name}_high", f"{name}_chance"
    random = _node("RandomUniformLike", [name], chance)
    random.attribute.extend([helper.make_attribute("seed", float(seed + 1)), helper.make_attribute("dtype", 1)])
    return [
        *ends_of(name, f"{name}_counted", low, high),
        random,
        _node("Sub", [high, low], f"{name}_width"),
        _node("Mul", [f"{name}_width", chance], f"{name}_scaled"),
        _node("Add", [f"{name}_scaled", low], f"{name}_others"),
        _node("Where", [f"{name}_counted", name, f"{name}_others"], f"{name}_exchanged"),
    ]


def ends_of(name: str, which: str | None, low: str, high: str) -> list[onnx.NodeProto]:
    """Return the nodes that compute the ends of a value, where `which` says that it counts."""
    nodes = []
    for operator, end, other in (("ReduceMin", low, "largest_float"), ("ReduceMax", high, "least_float")):
        of = name
        if which is not None:
            of = f"{end}_of"
            nodes.append(_node("Where", [which, name, other], of))
        nodes.append(helper.make_node(operator, [of], [end], keepdims=0))
    return nodes


def _node(operator: str, inputs: Sequence[str], output: str) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [output])
