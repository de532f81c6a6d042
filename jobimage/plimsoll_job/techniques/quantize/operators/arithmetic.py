"""Operators that compute: products, norms, reductions, and functions of each number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from onnx import helper
from torch import Tensor
from torch.nn import functional

from plimsoll_job.techniques.quantize.operators.contract import Attributes, Operator


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


def _folded(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, others: Sequence[Tensor]) -> Tensor:
    for other in others:
        x = function(x, other)
    return x


ARITHMETIC: Mapping[str, Operator] = {
    "Gemm": _gemm,
    "MatMul": _plain(torch.matmul),
    "Einsum": lambda a, *inputs: torch.einsum(a["equation"].decode(), *inputs),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
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
}
