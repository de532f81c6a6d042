"""Adaptive average pooling of any sizes: torch's exporter knows only outputs whose size divides that of the input.

Small images in AlexNet and VGG are pooled to more positions than they have.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.onnx import symbolic_helper

from plimsoll_job.export.refused import not_exportable


def averages(inputs: int, outputs: int) -> torch.Tensor:
    """Return the matrix [outputs, inputs] that pools one axis: an output is the mean of the bin that torch gives it."""
    matrix = torch.zeros(outputs, inputs)
    for row in range(outputs):
        first, last = row * inputs // outputs, math.ceil((row + 1) * inputs / outputs)
        matrix[row, first:last] = 1 / (last - first)
    return matrix


@symbolic_helper.parse_args("v", "v")
def _export(graph: Any, images: Any, wanted: Any) -> Any:
    """Return the node that pools; a mean over a rectangle is the mean along one axis of the means along the other."""
    outputs = _numbers(wanted)
    if outputs == [1, 1]:
        return graph.op("GlobalAveragePool", images)
    inputs = (images.type().varyingSizes() or [None, None])[-2:]
    sizes = [(size, one) for size, one in zip(inputs, outputs, strict=True) if size is not None and one is not None]
    if len(sizes) < len(outputs):
        raise not_exportable("adaptive pooling of images, or to images, of no fixed size")
    if inputs != outputs and all(size % one == 0 for size, one in sizes):
        kernel = [size // one for size, one in sizes]
        return graph.op("AveragePool", images, kernel_shape_i=kernel, strides_i=kernel)
    rows, columns = sizes
    if columns[0] != columns[1]:
        images = graph.op("MatMul", images, graph.op("Constant", value_t=averages(*columns).T.contiguous()))
    if rows[0] != rows[1]:
        images = graph.op("MatMul", graph.op("Constant", value_t=averages(*rows)), images)
    return images


def _numbers(wanted: Any) -> list[int | None]:
    """Return the sizes that are wanted, None where the graph does not fix one."""
    if not symbolic_helper._is_packed_list(wanted):
        return list(symbolic_helper._parse_arg(wanted, "is"))
    return [_number(one) for one in symbolic_helper._unpack_list(wanted)]


def _number(value: Any) -> int | None:
    """Return the whole number that the graph has there: a constant, or a size of a tensor, which None becomes."""
    node = value.node()
    if node.kind() == "onnx::Gather":
        shape, axis = node.inputs()
        if shape.node().kind() == "onnx::Shape":
            sizes = shape.node().input().type().varyingSizes()
            return None if sizes is None else sizes[_number(axis)]
    return symbolic_helper._parse_arg(value, "i") if node.kind() == "onnx::Constant" else None


#: By the operators that they write.
RULES = {"aten::adaptive_avg_pool2d": _export}
