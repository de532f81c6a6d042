"""Rules of operations that make one number of several along an axis, compare them, or depend on their order."""

from __future__ import annotations

from typing import Any

import torch

from plimsoll_job.techniques.prune.labels import Held, spanned, without
from plimsoll_job.techniques.prune.run import Run, argument, name_of

#: What makes one number of all along some axes: the argument that names these.
REDUCES = {
    "mean": 1, "sum": 1, "amax": 1, "amin": 1, "var": 1, "std": 1, "var_mean": 1, "std_mean": 1, "logsumexp": 1,
    "prod": 1, "max": 1, "min": 1, "any": 1, "all": 1, "median": 1, "linalg_vector_norm": 2, "norm": 2, "nansum": 1,
    "count_nonzero": 1,
}  # fmt: skip
#: What compares all along an axis and leaves as many: its argument that names the axis.
ALONG = {"_softmax": 1, "_log_softmax": 1, "_safe_softmax": 1, "softmax": 1, "log_softmax": 1}
#: What depends on the order along an axis.
ORDERS = {
    "cumsum": 1, "cumprod": 1, "sort": 1, "topk": 2, "argsort": 1, "argmax": 1, "argmin": 1, "logcumsumexp": 1,
    "cummax": 1, "cummin": 1, "_fft_r2c": 1, "_fft_c2r": 1, "_fft_c2c": 1,
}  # fmt: skip


def _axes(value: Any, ndim: int) -> frozenset[int]:
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return frozenset(range(ndim))
    values = value if isinstance(value, (list, tuple)) else [value]
    return frozenset(axis % ndim for axis in values) if ndim else frozenset()


def reduce(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """All along some axes becomes one number."""
    source = args[0]
    named = [argument.name for argument in func._schema.arguments]
    place = REDUCES[name_of(func)]
    takes_axes = place < len(named) and named[place] in {"dim", "axis", "dims"}
    axes = _axes(argument(func, args, kwargs, place) if takes_axes else None, source.ndim)
    keepdim = outputs[0].ndim == source.ndim
    reduced = reduce_held(run, run.held(source), axes, keepdim=keepdim)
    return [reduced for _ in outputs]


def reduce_held(run: Run, held: Held, axes: frozenset[int], *, keepdim: bool) -> Held:
    """Return what is left of labels where all along some axes become one."""
    found = []
    for labels in held.labels:
        if spanned(labels) <= axes:
            continue
        kept = run.flow.hold(labels, axes, f"they are summed up in parts in {run.at}")
        assert kept is not None  # noqa: S101 — it depends on other axes too
        found.append(without(kept, axes, keepdim=keepdim))
    left = [axis for axis in range(_ndim(held, axes)) if keepdim or axis not in axes]
    free = frozenset(new for new, old in enumerate(left) if old in held.free or old in axes)
    return Held(tuple(found), free, held.of_input)


def _ndim(held: Held, axes: frozenset[int]) -> int:
    sizes = [labels.ndim for labels in held.labels]
    return max([*sizes, *(axis + 1 for axis in (*axes, *held.free))], default=0)


def compare(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """All along an axis is compared."""
    source = args[0]
    axes = _axes(argument(func, args, kwargs, ALONG[name_of(func)]), source.ndim)
    return [normalised(run, run.held(source), axes)] * len(outputs)


def normalised(run: Run, held: Held, axes: frozenset[int]) -> Held:
    """Return what is left of labels where what stands along some axes is compared."""
    found = []
    for labels in held.labels:
        if spanned(labels) <= axes:
            found.append(labels)
        else:
            kept = run.flow.hold(labels, axes, f"they are normalised in parts in {run.at}")
            assert kept is not None  # noqa: S101 — it depends on other axes too
            found.append(kept)
    return Held(tuple(found), held.free, held.of_input)


def order(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """What stands along an axis depends on what stands before it."""
    source = args[0]
    held = run.held(source)
    default = -1 if name_of(func) in {"topk", "sort", "argsort"} else None
    axes = _axes(argument(func, args, kwargs, ORDERS[name_of(func)], default), source.ndim)
    why = f"their order counts at {name_of(func)} in {run.at}"
    kept = [labels for labels in (run.flow.hold(one, axes, why) for one in held.labels) if labels is not None]
    if outputs[0].ndim != source.ndim:
        kept = [without(one, axes, keepdim=False) for one in kept]
    return [Held(tuple(kept), of_input=held.of_input)] * len(outputs)


def pool(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """Places of pictures are mixed."""
    source = args[0]
    held = run.held(source)
    count = next((int(digit) for digit in name_of(func) if digit in "123"), 2)
    axes = frozenset(range(source.ndim - count, source.ndim))
    why = f"{name_of(func)} in {run.at} runs along them"
    kept = [labels for labels in (run.flow.hold(one, axes, why) for one in held.labels) if labels is not None]
    return [Held(tuple(kept), frozenset(held.free - axes), held.of_input)] * len(outputs)
