"""What becomes of values of a graph while it answers samples, computed in the graph: no value stays for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper, version_converter

from plimsoll_job.export.graph import opset
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.load.data import Samples
from plimsoll_job.memory import give_back
from plimsoll_job.scratch import Scratch
from plimsoll_job.sessions import open_frugally
from plimsoll_job.techniques.layout import Layout
from plimsoll_job.techniques.padding import Padding
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.padding import add_mask, after_each, replace_nodes


@dataclass(frozen=True)
class Watching:
    """Nodes that follow a value, those of their outputs that are told, of this ONNX type, and their own constants."""

    nodes: Sequence[onnx.NodeProto]
    told: Sequence[str]
    kind: int
    constants: Sequence[onnx.TensorProto] = ()


def watch(
    model: FloatModel,
    names: Sequence[str],
    padding: Padding,
    samples: Samples,
    following: Callable[[str, str | None], Watching],
    *,
    constants: Sequence[onnx.TensorProto] = (),
    least_opset: int = 0,
    change: Callable[[LeanModel], None] = lambda _: None,
) -> Iterator[list[NDArray[Any]]]:
    """Yield what is told of all values of these names, in their order, of one part of the samples after another.

    `following` makes what follows a value, and is given the name of the input that says which of its positions count,
    where not all do; `constants` are what more than one of them reads, `least_opset` is what their operators need.
    `change` changes the graph first.
    """
    give_back()
    scratch = Scratch()
    watched = model.lean()
    if opset(watched.proto) < least_opset:
        watched.proto = version_converter.convert_version(watched.proto, least_opset)
    change(watched)
    graph = watched.proto.graph
    layouts = list(dict.fromkeys(padding.layouts[name] for name in names if name in padding.layouts))
    which = {name: _input_of(layouts, layout) for name, layout in padding.layouts.items() if layout in layouts}
    watchings = {name: following(name, which.get(name)) for name in names}
    replace_nodes(graph, after_each(graph, {name: one.nodes for name, one in watchings.items()}))
    graph.initializer.extend(constants)
    graph.initializer.extend(constant for one in watchings.values() for constant in one.constants)
    for layout in layouts:
        add_mask(graph, _input_of(layouts, layout), layout)
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(told, one.kind, None) for one in watchings.values() for told in one.told
    )
    watched.write_apart(scratch.path / "watched.onnx")
    session = open_frugally(scratch.path / "watched.onnx", as_it_is=True)
    for part in samples.parts():
        masks = {_input_of(layouts, layout): layout.counted(part.mask) for layout in layouts if part.mask is not None}
        yield session.run(None, dict(part.inputs) | masks)


def _input_of(layouts: Sequence[Layout], layout: Layout) -> str:
    return f"counted_{layouts.index(layout)}"
