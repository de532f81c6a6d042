"""Adaptive average pooling of any sizes: torch's exporter knows only outputs whose size divides that of the input.

Small images in AlexNet and VGG are pooled to more positions than they have.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.onnx import symbolic_helper

OPERATOR = "aten::adaptive_avg_pool2d"


@contextlib.contextmanager
def any_pooling(opset: int) -> Iterator[None]:
    """Let the exporter take such pooling for a while; the sizes of images must be fixed in the graph."""
    torch.onnx.register_custom_op_symbolic(OPERATOR, _export, opset)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(OPERATOR, opset)  # type: ignore[attr-defined]


def averages(inputs: int, outputs: int) -> torch.Tensor:
    """Return the matrix [outputs, inputs] that pools one axis: an output is the mean of the bin that torch gives it."""
    matrix = torch.zeros(outputs, inputs)
    for row in range(outputs):
        first, last = row * inputs // outputs, math.ceil((row + 1) * inputs / outputs)
        matrix[row, first:last] = 1 / (last - first)
    return matrix


@symbolic_helper.parse_args("v", "is")
def _export(graph: Any, images: Any, wanted: Any) -> Any:
    """Return the node that pools; a mean over a rectangle is the mean along one axis of the means along the other."""
    if list(wanted) == [1, 1]:
        return graph.op("GlobalAveragePool", images)
    given = (images.type().varyingSizes() or [None, None])[-2:]
    if None in given:
        raise RuntimeError("adaptive pooling of images of no fixed size")
    sizes = [(size, size if one is None else one) for size, one in zip(given, wanted, strict=True)]
    if all(size % one == 0 for size, one in sizes):
        kernel = [size // one for size, one in sizes]
        return graph.op("AveragePool", images, kernel_shape_i=kernel, strides_i=kernel)
    rows, columns = (averages(*one) for one in sizes)
    pooled = graph.op("MatMul", images, graph.op("Constant", value_t=columns.T.contiguous()))
    return graph.op("MatMul", graph.op("Constant", value_t=rows), pooled)
