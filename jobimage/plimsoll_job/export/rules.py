"""How operators are written that torch's exporter does not know, or writes otherwise than they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.onnx import symbolic_helper
from torch.onnx._internal.torchscript_exporter import symbolic_opset14

from plimsoll_job.export import norms, pooling
from plimsoll_job.export.refused import not_exportable

#: Operators that ONNX has under another name.
SAME = {"asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "sinh": "Sinh", "cosh": "Cosh"}


@contextlib.contextmanager
def all_rules(opset: int) -> Iterator[None]:
    """Let the exporter write such operators for a while."""
    for operator, rule in RULES.items():
        torch.onnx.register_custom_op_symbolic(operator, rule, opset)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for operator in RULES:
            torch.onnx.unregister_custom_op_symbolic(operator, opset)  # type: ignore[attr-defined]


def _number(graph: Any, value: float) -> Any:
    return graph.op("Constant", value_t=torch.tensor(value))


def _sizes(value: Any) -> list[int | None]:
    sizes = value.type().varyingSizes()
    if sizes is None:
        raise not_exportable("a tensor of no fixed number of axes")
    return list(sizes)


def _size(value: Any, axis: int) -> int:
    """Return the size of the axis; RuntimeError where it is free."""
    size = _sizes(value)[axis]
    if size is None:
        raise not_exportable(f"an axis ({axis}) of no fixed size")
    return size


def _renamed(name: str) -> Callable[..., Any]:
    return lambda graph, value: graph.op(name, value)


def _trunc(graph: Any, value: Any, *_: Any) -> Any:
    return graph.op("Mul", graph.op("Sign", value), graph.op("Floor", graph.op("Abs", value)))


def _frac(graph: Any, value: Any) -> Any:
    return graph.op("Sub", value, _trunc(graph, value))


def _exp2(graph: Any, value: Any) -> Any:
    return graph.op("Pow", _number(graph, 2.0), value)


def _expm1(graph: Any, value: Any) -> Any:
    return graph.op("Sub", graph.op("Exp", value), _number(graph, 1.0))


def _erfc(graph: Any, value: Any) -> Any:
    return graph.op("Sub", _number(graph, 1.0), graph.op("Erf", value))


@symbolic_helper.parse_args("v", "v", "v", "v")
def _addcdiv(graph: Any, value: Any, over: Any, under: Any, factor: Any) -> Any:
    return graph.op("Add", value, graph.op("Mul", factor, graph.op("Div", over, under)))


@symbolic_helper.parse_args("v", "i", "i", "i")
def _unfold(graph: Any, value: Any, axis: int, size: int, step: int) -> Any:
    """Return windows along one axis; their places are a new axis at the end."""
    sizes = _sizes(value)
    axis %= (rank := len(sizes))
    if (length := sizes[axis]) is not None:
        count = (length - size) // step + 1
        places = graph.op("Constant", value_t=torch.arange(count)[:, None] * step + torch.arange(size))
    else:
        # As behind padding, of whose sizes a trace does not know that they are fixed.
        first, beyond, by = (graph.op("Constant", value_t=torch.tensor(one)) for one in (0, size - 1, step))
        length = graph.op(
            "Gather", graph.op("Shape", value), graph.op("Constant", value_t=torch.tensor(axis)), axis_i=0
        )
        starts = graph.op("Range", first, graph.op("Sub", length, beyond), by)
        column = graph.op("Unsqueeze", starts, graph.op("Constant", value_t=torch.tensor([1])))
        places = graph.op("Add", column, graph.op("Constant", value_t=torch.arange(size)))
    windows = graph.op("Gather", value, places, axis_i=axis)
    order = [one for one in range(rank + 1) if one != axis + 1]
    return graph.op("Transpose", windows, perm_i=[*order, axis + 1])


@symbolic_helper.parse_args("v", "i")
def _channel_shuffle(graph: Any, value: Any, groups: int) -> Any:
    channels = _size(value, 1)
    order = torch.arange(channels).view(groups, -1).T.flatten()
    return graph.op("Gather", value, graph.op("Constant", value_t=order), axis_i=1)


@symbolic_helper.parse_args("v", "v", "v", "v")
def _bilinear(graph: Any, left: Any, right: Any, weight: Any, bias: Any) -> Any:
    answer = graph.op("Einsum", left, weight, right, equation_s="...i,oij,...j->...o")
    return answer if symbolic_helper._is_none(bias) else graph.op("Add", answer, bias)


def _attention(graph: Any, query: Any, key: Any, value: Any, *rest: Any) -> Any:
    """Return torch's own nodes; where heads of the query share those of key and value, these are repeated first."""
    *settings, shared = rest
    if symbolic_helper._maybe_get_const(shared, "b"):
        heads = _part(graph, query, 1)
        key, value = (_repeated(graph, one, heads) for one in (key, value))
    return symbolic_opset14.scaled_dot_product_attention(graph, query, key, value, *settings)


def _repeated(graph: Any, value: Any, heads: Any) -> Any:
    """Return [batch, heads, length, width] of fewer heads with each as often as makes so many."""
    batch, few, length, width = (_part(graph, value, axis) for axis in range(4))
    wide = graph.op("Concat", batch, few, graph.op("Div", heads, few), length, width, axis_i=0)
    axis = graph.op("Constant", value_t=torch.tensor([2]))
    apart = graph.op("Expand", graph.op("Unsqueeze", value, axis), wide)
    return graph.op("Reshape", apart, graph.op("Concat", batch, heads, length, width, axis_i=0))


def _part(graph: Any, value: Any, axis: int) -> Any:
    """Return the size of the axis, as a tensor of one number."""
    return graph.op("Gather", graph.op("Shape", value), graph.op("Constant", value_t=torch.tensor([axis])), axis_i=0)


RULES: Mapping[str, Any] = {
    **norms.RULES,
    **pooling.RULES,
    **{f"aten::{name}": _renamed(operator) for name, operator in SAME.items()},
    "aten::addcdiv": _addcdiv,
    "aten::bilinear": _bilinear,
    "aten::channel_shuffle": _channel_shuffle,
    "aten::erfc": _erfc,
    "aten::exp2": _exp2,
    "aten::expm1": _expm1,
    "aten::frac": _frac,
    "aten::scaled_dot_product_attention": _attention,
    "aten::trunc": _trunc,
    "aten::unfold": _unfold,
}
