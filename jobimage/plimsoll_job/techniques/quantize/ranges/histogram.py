"""Histograms of activations, counted in the graph while it answers: they take no more memory for more samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from plimsoll_job.load.data import Samples
from plimsoll_job.techniques.padding import Padding
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.ranges.min_max import RangeTable
from plimsoll_job.techniques.quantize.ranges.watch import Watching, watch

BINS = 2048
#: Bins are of one width in asinh(value): near zero all are as narrow, beyond this share of the largest value each is by
#: one factor wider than the one before, about 1%. Of one width they would all but miss what lies below an outlier.
FINEST = 2.0**-16
#: The first operator set in which ScatterElements adds.
SCATTER_ADDS = 16
#: What is left out is counted in one more bin.
LEFT_OUT = BINS


@dataclass(frozen=True)
class Histogram:
    """How many values lie between an edge and the next, from the least value to the largest."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]

    def below(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the share of what was counted that lies below each value; within a bin values lie evenly."""
        share = np.concatenate([[0.0], np.cumsum(self.counts) / max(1, self.counts.sum())])
        found: NDArray[np.float64] = np.interp(values, self.edges, share)
        return found


@dataclass(frozen=True)
class _Scale:
    """Where a value lies among the bins: at (asinh(times · value) - start) · speed."""

    times: float
    start: float
    speed: float

    @classmethod
    def of(cls, low: float, high: float) -> _Scale:
        times = 1 / (FINEST * max(abs(low), abs(high)))
        start, end = np.arcsinh(low * times), np.arcsinh(high * times)
        return cls(times, start, BINS / (end - start))

    def edges(self, low: float, high: float) -> NDArray[np.float64]:
        """Return the edges of the bins between the ends."""
        edges: NDArray[np.float64] = np.sinh(self.start + np.arange(BINS + 1) / self.speed) / self.times
        edges[[0, -1]] = low, high
        return edges


def observe_histograms(
    model: FloatModel, ends: RangeTable, padding: Padding, calibration: Samples
) -> Mapping[str, Histogram]:
    """Return the histogram of each activation between its ends, padding left out; none of one that has no width."""
    scales = {name: _Scale.of(low, high) for name, (low, high) in ends.items() if _has_width(low, high)}
    names = list(scales)
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    following, constants = partial(_count, scales), _constants(bool(padding.layouts))
    for found in watch(model, names, padding, calibration, following, constants=constants, least_opset=SCATTER_ADDS):
        for name, counted in zip(names, found, strict=True):
            counts[name] += counted[:BINS]
    return {name: Histogram(scales[name].edges(*ends[name]), counts[name]) for name in names}


def _has_width(low: float, high: float) -> bool:
    width = np.float32(high) - np.float32(low)
    return bool(np.isfinite(width) and width > np.finfo(np.float32).tiny / FINEST)


def _constants(padded: bool) -> list[onnx.TensorProto]:
    left_out = [helper.make_tensor("bin_left_out", TensorProto.INT64, [], [LEFT_OUT])] if padded else []
    return [
        *left_out,
        helper.make_tensor("first_bin", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("last_bin", TensorProto.FLOAT, [], [BINS - 1.0]),
        helper.make_tensor("one_axis", TensorProto.INT64, [1], [-1]),
        helper.make_tensor("no_counts", TensorProto.INT32, [BINS + 1], [0] * (BINS + 1)),
    ]


def _count(scales: Mapping[str, _Scale], name: str, which: str | None) -> Watching:
    scale = scales[name]
    numbers = {"times": scale.times, "start": scale.start, "speed": scale.speed}
    nodes = [
        ("Mul", [name, f"{name}_times"], f"{name}_multiplied"),
        ("Asinh", [f"{name}_multiplied"], f"{name}_asinh"),
        ("Sub", [f"{name}_asinh", f"{name}_start"], f"{name}_from_start"),
        ("Mul", [f"{name}_from_start", f"{name}_speed"], f"{name}_place"),
        ("Clip", [f"{name}_place", "first_bin", "last_bin"], f"{name}_clipped"),
        ("Cast", [f"{name}_clipped"], f"{name}_bin"),
        *([("Where", [which, f"{name}_bin", "bin_left_out"], f"{name}_bin_counted")] if which else ()),
        ("Reshape", [f"{name}_bin_counted" if which else f"{name}_bin", "one_axis"], f"{name}_bins"),
        ("Shape", [f"{name}_bins"], f"{name}_how_many"),
        ("ConstantOfShape", [f"{name}_how_many"], f"{name}_ones"),
        ("ScatterElements", ["no_counts", f"{name}_bins", f"{name}_ones"], f"{name}_counts"),
    ]
    attributes = {
        "Cast": {"to": TensorProto.INT64},
        "ConstantOfShape": {"value": helper.make_tensor("one", TensorProto.INT32, [1], [1])},
        "ScatterElements": {"reduction": "add"},
    }
    return Watching(
        [helper.make_node(kind, read, [made], **attributes.get(kind, {})) for kind, read, made in nodes],
        [f"{name}_counts"],
        TensorProto.INT32,
        [helper.make_tensor(f"{name}_{what}", TensorProto.FLOAT, [], [number]) for what, number in numbers.items()],
    )
