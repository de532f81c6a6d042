"""Normalisations that torch's exporter does not know, or takes for others.

That of instances by running statistics is taken for one by each sample's own: the exporter repeats the statistics for
each sample of the batch, and cannot where the batch is free. That by the root mean square (Zhang & Sennrich, NeurIPS
2019) is none of the operators of this set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.onnx import symbolic_helper

from plimsoll_job.export.refused import not_exportable


@symbolic_helper.parse_args("v", "is", "v", "f")
def _rms_norm(graph: Any, inputs: Any, shape: Sequence[int], weight: Any, epsilon: float | None) -> Any:
    """Return the node that divides by the root of the mean square over the last axes, and scales."""
    mean = graph.op("ReduceMean", graph.op("Mul", inputs, inputs), axes_i=[*range(-len(shape), 0)])
    least = graph.op("Constant", value_t=torch.tensor(torch.finfo(torch.float32).eps if epsilon is None else epsilon))
    normal = graph.op("Div", inputs, graph.op("Sqrt", graph.op("Add", mean, least)))
    return normal if symbolic_helper._is_none(weight) else graph.op("Mul", normal, weight)


@symbolic_helper.parse_args("v", "v", "v", "v", "v", "b", "f", "f", "b")
def _instance_norm(  # noqa: PLR0917 — as the operator has them
    graph: Any,
    inputs: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    of_sample: bool,
    _momentum: float,
    epsilon: float,
    _fast: bool,
) -> Any:
    """Return the node that normalises; with running statistics it is what a batch norm computes when it is served."""
    channels = (inputs.type().varyingSizes() or [None, None])[1]
    scale, shift = (_given(graph, one, number, channels) for one, number in ((weight, 1.0), (bias, 0.0)))
    if of_sample:
        return graph.op("InstanceNormalization", inputs, scale, shift, epsilon_f=epsilon)
    return graph.op("BatchNormalization", inputs, scale, shift, mean, variance, epsilon_f=epsilon)


def _given(graph: Any, value: Any, number: float, channels: int | None) -> Any:
    """Return the value, or so many times the number where the layer has none."""
    if value is not None and not symbolic_helper._is_none(value):
        return value
    if channels is None:
        raise not_exportable("instance normalisation of no fixed number of channels")
    return graph.op("Constant", value_t=torch.full((channels,), number))


#: By the operators that they write.
RULES = {"aten::instance_norm": _instance_norm, "aten::rms_norm": _rms_norm}
