"""Operators that move a window over axes: convolutions and pools."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from plimsoll_job.techniques.quantize.operators.contract import Attributes, Operator


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    axes = weight.ndim - 2
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    x, padding = _padded(x, a, axes, 0.0)
    ones = [1] * axes
    strides, dilations = a.get("strides", ones), a.get("dilations", ones)
    return convolve(x, weight, bias, strides, padding, dilations, a.get("group", 1))


def _conv_transpose(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    axes = weight.ndim - 2
    convolve = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[axes - 1]
    pads, ones = a.get("pads", [0] * 2 * axes), [1] * axes
    if pads[:axes] != pads[axes:] or "output_shape" in a:
        raise NotImplementedError("a ConvTranspose of uneven padding")
    extra = a.get("output_padding", [0] * axes)
    strides, dilations = a.get("strides", ones), a.get("dilations", ones)
    return convolve(x, weight, bias, strides, pads[:axes], extra, a.get("group", 1), dilations)


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    kernel = a["kernel_shape"]
    axes = len(kernel)
    pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[axes - 1]
    x, padding = _padded(x, a, axes, -math.inf)
    ones = [1] * axes
    strides, dilations = a.get("strides", ones), a.get("dilations", ones)
    pooled: Tensor = pool(x, kernel, strides, padding, dilations, bool(a.get("ceil_mode", 0)))
    return pooled


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    kernel = a["kernel_shape"]
    axes = len(kernel)
    pads = a.get("pads", [0] * 2 * axes)
    if pads[:axes] != pads[axes:]:
        raise NotImplementedError("an AveragePool of uneven padding")
    pool: Any = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[axes - 1]
    ceil, whole = bool(a.get("ceil_mode", 0)), bool(a.get("count_include_pad", 0))
    pooled: Tensor = pool(x, kernel, a.get("strides", [1] * axes), pads[:axes], ceil, whole)
    return pooled


def _padded(x: Tensor, a: Attributes, axes: int, value: float) -> tuple[Tensor, list[int]]:
    """Return the input and the padding of a window, the input padded already where that is uneven."""
    if a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise NotImplementedError("automatic padding")
    pads = a.get("pads", [0] * 2 * axes)
    before, after = pads[:axes], pads[axes:]
    if before == after:
        return x, before
    both = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    return functional.pad(x, both, value=value), [0] * axes


WINDOWS: Mapping[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
}
