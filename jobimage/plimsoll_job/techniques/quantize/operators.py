"""ONNX operators in torch, so that a graph can be trained: those that torch's exporter writes for known architectures.

Each takes the node's attributes and its inputs, None for one left out, and returns its output or outputs, as the ONNX
specification says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnx import helper
from torch import Tensor
from torch.nn import functional

Attributes = Mapping[str, Any]
Operator = Callable[..., Tensor | Sequence[Tensor]]


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


def _gemm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x = x.T if a.get("transA") else x
    product = x @ (weight.T if a.get("transB") else weight)
    product = product if a.get("alpha", 1) == 1 else product * a["alpha"]
    return product if bias is None else product + (bias if a.get("beta", 1) == 1 else bias * a["beta"])


def _batch_norm(a: Attributes, x: Tensor, *statistics: Tensor) -> Tensor:
    scale, bias, mean, variance = statistics
    return functional.batch_norm(x, mean, variance, scale, bias, eps=a.get("epsilon", 1e-5))


def _layer_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    shape = x.shape[a.get("axis", -1) :]
    return functional.layer_norm(
        x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), a.get("epsilon", 1e-5)
    )


def _divide(a: Attributes, x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y, rounding_mode=None if x.is_floating_point() else "trunc")


def _clip(a: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _cast(a: Attributes, x: Tensor) -> Tensor:
    name = helper.tensor_dtype_to_np_dtype(a["to"]).name
    dtype: torch.dtype = getattr(torch, name)
    return x.to(dtype)


def _gather(a: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.ndim
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    taken = x.index_select(axis, indices.flatten())
    return taken.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _gather_elements(a: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = a.get("axis", 0)
    return x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def _scatter_nd(a: Attributes, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    return x.index_put(tuple(indices.movedim(-1, 0)), updates)


def _slice(a: Attributes, x: Tensor, starts: Tensor, ends: Tensor, *rest: Tensor) -> Tensor:
    axes, steps = (*rest, None, None)[:2]
    begins = starts.tolist()
    along = range(len(begins)) if axes is None else axes.tolist()
    strides = [1] * len(begins) if steps is None else steps.tolist()
    for axis, begin, end, stride in zip(along, begins, ends.tolist(), strides, strict=True):
        chosen = range(x.shape[axis])[begin:end:stride]
        if stride == 1:
            x = x.narrow(axis, chosen.start if len(chosen) else 0, len(chosen))
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64, device=x.device))
    return x


def _split(a: Attributes, x: Tensor, sizes: Tensor | None = None) -> Sequence[Tensor]:
    axis = a.get("axis", 0)
    if sizes is None:
        return torch.split(x, math.ceil(x.shape[axis] / a["outputs"]), axis)
    return torch.split(x, sizes.tolist(), axis)


def _reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    wanted = shape.tolist()
    if not a.get("allowzero"):
        wanted = [x.shape[at] if size == 0 else size for at, size in enumerate(wanted)]
    return x.reshape(wanted)


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(axes.tolist())


def _unsqueeze(a: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + axes.numel()
    for axis in sorted(one % rank for one in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _expand(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    # The shape may have ones where the input does not.
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist())))  # type: ignore[no-untyped-call]


def _shape(a: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[a.get("start", 0) : a.get("end")], dtype=torch.int64, device=x.device)


def _constant_of_shape(a: Attributes, shape: Tensor) -> Tensor:
    value = a.get("value", torch.zeros(1)).to(shape.device)
    filled: Tensor = value.reshape(()).expand(shape.tolist()).clone()
    return filled


def _range(a: Attributes, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype, device=start.device)


def _pad(a: Attributes, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    mode = a.get("mode", b"constant").decode()
    if mode != "constant" or axes is not None:
        raise NotImplementedError(f"Pad of mode {mode}")
    sides = pads.tolist()
    both = [side for axis in reversed(range(x.ndim)) for side in (sides[axis], sides[axis + x.ndim])]
    return functional.pad(x, both, value=0.0 if value is None else value.item())


def _reduced(reduce: Callable[..., Tensor]) -> Operator:
    """Return the reduction over axes that are an attribute or an input."""

    def operator(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        over = a.get("axes") if axes is None else axes.tolist()
        return reduce(x, tuple(range(x.ndim)) if over is None else tuple(over), keepdim=bool(a.get("keepdims", 1)))

    return operator


def _arg_max(a: Attributes, x: Tensor) -> Tensor:
    if a.get("select_last_index"):
        raise NotImplementedError("ArgMax of the last index")
    return x.argmax(a.get("axis", 0), keepdim=bool(a.get("keepdims", 1)))


def _cumulated(a: Attributes, x: Tensor, axis: Tensor) -> Tensor:
    if a.get("exclusive") or a.get("reverse"):
        raise NotImplementedError("an exclusive or reverse CumSum")
    return x.cumsum(int(axis.item())).to(x.dtype)


def _plain(function: Callable[..., Tensor]) -> Operator:
    """Return an operator without attributes."""
    return lambda a, *inputs: function(*inputs)


OPERATORS: Mapping[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _plain(torch.matmul),
    "Einsum": lambda a, *inputs: torch.einsum(a["equation"].decode(), *inputs),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMin": _reduced(torch.amin),
    "ReduceL2": _reduced(torch.linalg.vector_norm),
    "ArgMax": _arg_max,
    "CumSum": _cumulated,
    "Add": _plain(torch.add),
    "Sub": _plain(torch.sub),
    "Mul": _plain(torch.mul),
    "Div": _divide,
    "Mod": lambda a, x, y: torch.fmod(x, y) if a.get("fmod") else torch.remainder(x, y),
    "Pow": _plain(torch.pow),
    "Sqrt": _plain(torch.sqrt),
    "Exp": _plain(torch.exp),
    "Log": _plain(torch.log),
    "Abs": _plain(torch.abs),
    "Neg": _plain(torch.neg),
    "Sin": _plain(torch.sin),
    "Cos": _plain(torch.cos),
    "Erf": _plain(torch.erf),
    "Reciprocal": _plain(torch.reciprocal),
    "Min": lambda a, x, *others: _folded(torch.minimum, x, others),
    "Max": lambda a, x, *others: _folded(torch.maximum, x, others),
    "Clip": _clip,
    "Relu": _plain(torch.relu),
    "LeakyRelu": lambda a, x: functional.leaky_relu(x, a.get("alpha", 0.01)),
    "Elu": lambda a, x: functional.elu(x, a.get("alpha", 1.0)),
    "PRelu": lambda a, x, slope: torch.where(x < 0, x * slope, x),
    "Softplus": _plain(functional.softplus),
    "Sigmoid": _plain(torch.sigmoid),
    "Tanh": _plain(torch.tanh),
    "HardSigmoid": lambda a, x: (x * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": _plain(functional.hardswish),
    "Softmax": lambda a, x: x.softmax(a.get("axis", -1)),
    "LogSoftmax": lambda a, x: x.log_softmax(a.get("axis", -1)),
    "Where": _plain(torch.where),
    "Equal": _plain(torch.eq),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "And": _plain(torch.logical_and),
    "Or": _plain(torch.logical_or),
    "Not": _plain(torch.logical_not),
    "IsNaN": _plain(torch.isnan),
    "Cast": _cast,
    "Identity": lambda a, x: x,
    "Constant": lambda a: a["value"],
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Shape": _shape,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": lambda a, x, repeats: x.tile(repeats.tolist()),
    "Transpose": lambda a, x: x.permute(a.get("perm", tuple(reversed(range(x.ndim))))),
    "Concat": lambda a, *inputs: torch.cat(inputs, a["axis"]),
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "ScatterND": _scatter_nd,
    "Pad": _pad,
}


def _folded(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, others: Sequence[Tensor]) -> Tensor:
    for other in others:
        x = function(x, other)
    return x
