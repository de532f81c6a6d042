"""Instance normalisation by running statistics, which torch's exporter takes for that by each sample's own.

It repeats the statistics for each sample of the batch, and cannot where the batch is free.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.onnx import symbolic_helper

OPERATOR = "aten::instance_norm"


@contextlib.contextmanager
def running_instance_norms(opset: int) -> Iterator[None]:
    """Let the exporter write such layers for a while."""
    torch.onnx.register_custom_op_symbolic(OPERATOR, _export, opset)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(OPERATOR, opset)  # type: ignore[attr-defined]


@symbolic_helper.parse_args("v", "v", "v", "v", "v", "b", "f", "f", "b")
def _export(  # noqa: PLR0917 — as the operator has them
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
        raise RuntimeError("instance normalisation of no fixed number of channels")
    return graph.op("Constant", value_t=torch.full((channels,), number))
