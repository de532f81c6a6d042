"""The ranges that activations are rounded in: all that calibration data shows, or what of it a method keeps."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

from plimsoll_api.spec import RangeMethod
from plimsoll_job.load.data import Samples
from plimsoll_job.scratch import Scratch
from plimsoll_job.techniques.padding import Padding
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.layers import Layer
from plimsoll_job.techniques.quantize.padding import find_padding_in_graph
from plimsoll_job.techniques.quantize.ranges.histogram import Histogram, observe_histograms
from plimsoll_job.techniques.quantize.ranges.methods import METHODS
from plimsoll_job.techniques.quantize.ranges.min_max import RangeTable, observe_ends
from plimsoll_job.techniques.quantize.region import int8_nodes

#: The ranges of a model's activations, as ONNX Runtime's calibration cache keeps them: JSON.
Ranges = bytes
SIDES = ("lowest", "highest")


@dataclass(frozen=True)
class Observed:
    """The activations of a model on calibration data: their ends, where padding is, and on demand their ranges."""

    model: FloatModel
    calibration: Samples
    padding: Padding
    #: The least and the largest value of each.
    ends: RangeTable
    _by: dict[RangeMethod, RangeTable] = field(default_factory=dict)

    @classmethod
    def of(cls, model: FloatModel, calibration: Samples) -> Observed:
        """Return what the samples show of all values that the model's layers could have quantized."""
        names = activations(model.lean().proto, model.layers)
        padding = find_padding_in_graph(model, names, calibration)
        return cls(model, calibration, padding, observe_ends(model, names, padding, calibration))

    def narrowed(self, method: RangeMethod) -> int:
        """Return how many ranges are narrower by the method than by MinMax."""
        ends = {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in self.ends.items()}
        chosen = self.ranges(method)
        return sum(low < chosen[name][0] or chosen[name][1] < high for name, (low, high) in ends.items())

    def ranges(self, method: RangeMethod) -> RangeTable:
        """Return the range of each activation by the method; one whose ends are no numbers keeps them."""
        if method not in self._by:
            choose = METHODS.get(method)
            chosen = {} if choose is None else {name: choose(one) for name, one in self._histograms.items()}
            self._by[method] = {**self.ends, **chosen}
        return self._by[method]

    @cached_property
    def _histograms(self) -> Mapping[str, Histogram]:
        return observe_histograms(self.model, self.ends, self.padding, self.calibration)


def observe_ranges(model: FloatModel, calibration: Samples, method: RangeMethod = RangeMethod.MIN_MAX) -> Ranges:
    """Return the range of each activation over all samples by the method, padding left out."""
    return write_ranges(Observed.of(model, calibration).ranges(method))


def activations(model: onnx.ModelProto, layers: Collection[Layer]) -> list[str]:
    """Return the names of the float values that nodes which are quantized read or write."""
    graph = model.graph
    taken = int8_nodes(graph, layers)
    touched = {name for node in graph.node if node.name in taken for name in (*node.input, *node.output)}
    values = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
    constants = {constant.name for constant in graph.initializer}
    floats = {name for name, value in values.items() if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return sorted((touched & floats) - constants)


def read_ranges(ranges: Ranges) -> RangeTable:
    """Return the ranges as numbers; ONNX Runtime keeps each end as a list of one."""
    table = json.loads(ranges)["data"]
    return {name: tuple(float(np.ravel(row[side]["data"])[0]) for side in SIDES) for name, row in table.items()}  # type: ignore[misc]


def write_ranges(table: RangeTable) -> Ranges:
    """Return the ranges as ONNX Runtime reads them."""
    ends = {name: tuple(np.array([end], np.float32) for end in some) for name, some in table.items()}
    scratch = Scratch()
    cache = scratch.path / "ranges.json"
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, ends), cache)
    return cache.read_bytes()
