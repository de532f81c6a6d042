"""What layers of a graph read, over all samples: values of one batch at a time, and which of their positions count."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from plimsoll_job.export.lean import read_by
from plimsoll_job.load.data import Samples
from plimsoll_job.memory import give_back
from plimsoll_job.scratch import Scratch
from plimsoll_job.sessions import open_frugally
from plimsoll_job.techniques.layout import Layout
from plimsoll_job.techniques.quantize.float_model import FloatModel

#: Hears the name of a value, its numbers, and which of its positions count, of size 1 along the others; None: all do.
Watch = Callable[[str, Tensor, Tensor | None], None]


def observe(
    model: FloatModel, names: Collection[str], calibration: Samples, layouts: Mapping[str, Layout], watch: Watch
) -> None:
    """Hand these values of the graph, batch by batch, to `watch`; `layouts` tell where padding is in some of them."""
    give_back()
    scratch, watched, asked = Scratch(), model.lean(), sorted(names)
    graph = watched.proto.graph
    given = {value.name for value in graph.input}
    computed = [name for name in asked if name not in given]
    watched.set_nodes(_needed(graph, computed))
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in computed)
    watched.drop_unread()
    watched.write_apart(scratch.path / "watched.onnx")
    session = open_frugally(scratch.path / "watched.onnx", as_it_is=True) if computed else None
    taken = {one.name for one in session.get_inputs()} if session else set()
    for part in calibration.parts():
        fed = {name: array for name, array in part.inputs.items() if name in taken}
        found = dict(zip(computed, session.run(None, fed), strict=True)) if session else {}
        for name in asked:
            value: NDArray[np.float32] = found.pop(name) if name in found else part.inputs[name]
            watch(name, torch.from_numpy(value), _counted(value.shape, layouts.get(name), part.mask))


def _counted(shape: tuple[int, ...], layout: Layout | None, mask: NDArray[np.bool_] | None) -> Tensor | None:
    if mask is None or layout is None or not layout.fits(shape, len(mask), mask.shape[1]):
        return None
    return torch.from_numpy(layout.counted(mask))


def _needed(graph: onnx.GraphProto, names: Collection[str]) -> list[onnx.NodeProto]:
    """Return the nodes that these values depend on, in their order."""
    wanted, kept = set(names), []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(read_by(node))
    return kept[::-1]
