"""Operators that choose, move and shape numbers, and compute none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from plimsoll_job.techniques.quantize.operators.contract import Attributes, Operator


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


LAYOUT: Mapping[str, Operator] = {
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
