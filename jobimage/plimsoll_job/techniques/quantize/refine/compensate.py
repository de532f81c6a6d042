"""Weights of linear layers and convolutions rounded beforehand, so that each loss is made up for by other weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from plimsoll_job.export.lean import LeanModel, Stored
from plimsoll_job.load.data import Samples
from plimsoll_job.scratch import Scratch
from plimsoll_job.techniques.layout import Layout
from plimsoll_job.techniques.moments import Moments, bundled
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.layers import Layer
from plimsoll_job.techniques.quantize.padding import find_padding_in_graph
from plimsoll_job.techniques.quantize.refine.gptq import round_compensated, shrunk
from plimsoll_job.techniques.quantize.refine.grid import Grid
from plimsoll_job.techniques.quantize.refine.inputs import observe
from plimsoll_job.techniques.quantize.refine.refined import Refined
from plimsoll_job.techniques.quantize.refine.weights import Reading, Weight, find_weights

#: What weights that share their moments read: one value, or several where layers share a weight.
Readings = tuple[Reading, ...]


def compensate(model: FloatModel, layers: Collection[Layer], calibration: Samples, grid: Grid) -> Refined:
    """Return the model whose weights of these layers lie on the grid that their scheme rounds them to, by GPTQ.

    What a layer reads is taken from the float model, padding left out. Layers of other kinds, and weights that are read
    elsewhere too, are left as they are. Moments are held for a few layers at a time, for which the samples are passed
    over each time.
    """
    changed, scratch = model.lean(), Scratch()
    weights, left = find_weights(changed.proto.graph, layers)
    if not weights:
        return Refined(model, {}, left)
    together: dict[Readings, list[Weight]] = defaultdict(list)
    for weight in weights:
        together[tuple(weight.readings)].append(weight)
    values = {reading.value for readings in together for reading in readings}
    layouts = find_padding_in_graph(model, sorted(values), calibration).layouts
    errors: dict[str, float] = {}
    for bundle in bundled(together, lambda readings: [together[readings][0].width]):
        moments = _observe(model, {readings: together[readings][0].width for readings in bundle}, calibration, layouts)
        for readings in bundle:
            held = moments.pop(readings)
            second = shrunk(held.second(centred=False), held.row_count) if held.row_count else None
            for weight in together[readings]:
                rows = weight.rows(changed.array(weight.constant))
                made = None if second is None else round_compensated(rows, second, grid)
                if made is None:
                    left |= {layer.node: "what it reads is all zeros, or no numbers" for layer in weight.layers}
                    continue
                _store(changed, weight.constant, weight.lying(made[0]), scratch)
                errors |= {layer.node: made[1] for layer in weight.layers}
    return Refined(model.rewritten(changed) if errors else model, errors, left)


def restored(model: FloatModel, before: FloatModel, layers: Collection[Layer]) -> FloatModel:
    """Return a compensated model with these layers' weights as they were before: such as are to stay float."""
    changed, given = model.lean(), before.lean()
    constants = {constant.name: constant for constant in given.proto.graph.initializer}
    names = {layer.weight for layer in layers}
    for constant in list(changed.proto.graph.initializer):
        if constant.name in names:
            changed.replace(constant, constant.name, constant.data_type, given.source(constants[constant.name]))
    return model.rewritten(changed)


def _observe(
    model: FloatModel, widths: Mapping[Readings, int], calibration: Samples, layouts: Mapping[str, Layout]
) -> dict[Readings, Moments]:
    """Return the second moments of what these read, of so many inputs each."""
    moments = {readings: Moments(width) for readings, width in widths.items()}

    def watch(name: str, value: Tensor, counted: Tensor | None) -> None:
        for readings, held in moments.items():
            for reading in readings:
                for rows in reading.rows(value, counted) if reading.value == name else ():
                    held.add(rows)

    values = {reading.value for readings in widths for reading in readings}
    observe(model, values, calibration, layouts, watch)
    return moments


def _store(model: LeanModel, constant: TensorProto, numbers: NDArray[Any], scratch: Scratch) -> None:
    path = scratch.path / "numbers"
    with path.open("ab") as file:
        place = file.tell()
        numbers.tofile(file)
    kept = Stored(path, numbers.dtype, tuple(constant.dims), place, scratch)
    model.replace(constant, constant.name, constant.data_type, kept)
