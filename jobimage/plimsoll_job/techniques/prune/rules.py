"""What each operation of torch's ATen makes of the labels of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from plimsoll_job.techniques.prune.labels import Held, spanned
from plimsoll_job.techniques.prune.moves import MOVES, gate, join, move, same
from plimsoll_job.techniques.prune.products import batch_norm, convolve, group_norm, layer_norm, multiply
from plimsoll_job.techniques.prune.run import NotFollowedError, Run, met_at, name_of, tensors_in
from plimsoll_job.techniques.prune.sums import ALONG, ORDERS, REDUCES, compare, order, pool, reduce

Rule = Callable[[Run, Any, Any, Any, list[torch.Tensor]], list[Held]]
#: What makes of each position one at the same place, besides those that torch tags so.
POINTWISE = frozenset({
    "detach", "alias", "contiguous", "_to_copy", "to", "lift_fresh", "lift", "dropout", "native_dropout", "bernoulli",
    "fill", "zero", "copy", "tril", "triu", "masked_fill", "clone", "where", "zeros_like", "ones_like", "full_like",
    "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones", "new_full", "new_empty", "uniform", "normal",
    "lift_fresh_copy", "is_inf", "hardswish", "prelu", "_prelu_kernel", "rrelu_with_noise", "log_sigmoid",
    "log_sigmoid_forward", "rsub",
    "resolve_conj", "resolve_neg", "_conj", "addcmul", "addcdiv",
})  # fmt: skip
#: What depends on the shape of its input alone.
SHAPES_ONLY = frozenset({
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones",
    "new_full", "new_empty", "new_empty_strided",
})  # fmt: skip
#: What makes tensors of one number of no other tensor, or of numbers that nobody reads.
FILLS = frozenset({"zeros", "ones", "full", "empty", "empty_strided", "scalar_tensor"})
#: What can be followed where a tensor has no numbers, as the weight of a layer without outputs.
EMPTY_TOO = frozenset({"cat", "t", "transpose", "permute", "mm", "addmm", "bmm", "baddbmm"})
#: What mixes places of pictures, whose number stands in the name.
PLACES = ("avg_pool", "max_pool", "upsample", "grid_sampler", "_upsample")


def outcome(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """Return what each output holds; what no rule knows is kept whole."""
    if not outputs:
        return _unknown(run, func, args, kwargs, outputs)
    tensors = tensors_in(args, kwargs)
    if not tensors:
        # A row of numbers has others where it is shorter, so that what it meets stays.
        fills = name_of(func) in FILLS
        return [Held(free=frozenset(range(one.ndim) if fills else ())) for one in outputs]
    rule = _rule_of(func)
    if (outputs[0].numel() == 0 or tensors[0].numel() == 0) and name_of(func) not in EMPTY_TOO:
        return _unknown(run, func, args, kwargs, outputs)
    try:
        return rule(run, func, args, kwargs, outputs)
    except NotFollowedError:
        return _unknown(run, func, args, kwargs, outputs)


def _rule_of(func: Any) -> Rule:
    name = name_of(func)
    pointwise = torch.Tag.pointwise in func.tags or name in POINTWISE
    # Of two tensors, such as max, the names of some that reduce mean one for each place.
    if pointwise and name in REDUCES:
        return _pointwise
    if name not in _RULES and any(word in name for word in PLACES):
        return pool
    return _RULES.get(name, _pointwise if pointwise else _unknown)


def _unknown(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    tensors = tensors_in(args, kwargs)
    for one in tensors:
        for labels in run.held(one).labels:
            run.flow.atoms.keep(labels, f"they pass {name_of(func)} in {run.at}, through which no channel is followed")
    of_input = any(run.held(one).of_input for one in tensors)
    return [Held(of_input=of_input) for _ in outputs]


def _free(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    return [Held(free=frozenset(range(one.ndim))) for one in outputs]


def _pointwise(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    tensors = tensors_in(args, kwargs)
    if name_of(func) in {"copy", "fill", "zero"} or func._schema.is_mutable:
        _write_into(run, tensors)
    met = run.flow.meet([(run.held(one), one.shape) for one in tensors], outputs[0].shape, met_at(run, func))
    return [met for _ in outputs]


def _write_into(run: Run, tensors: Sequence[torch.Tensor]) -> None:
    """Keep what is written into a part of a tensor that has no labels there: they would be lost."""
    target = tensors[0]
    if target._base is not None and target._base.numel() > target.numel():
        known = {axis for labels in run.held(target).labels for axis in spanned(labels)}
        for one in tensors[1:]:
            lead = target.ndim - one.ndim
            for labels in run.held(one).labels:
                if {lead + axis for axis in spanned(labels)} - known:
                    run.flow.atoms.keep(labels, f"they are written into a part of a tensor in {run.at}")


_RULES: dict[str, Rule] = {
    **dict.fromkeys(MOVES, move),
    **dict.fromkeys(SHAPES_ONLY, _free),
    **dict.fromkeys(REDUCES, reduce),
    **dict.fromkeys(ALONG, compare),
    **dict.fromkeys(ORDERS, order),
    "glu": gate,
    "cat": join, "stack": join,
    "mm": multiply, "addmm": multiply, "bmm": multiply, "baddbmm": multiply, "mv": multiply, "addmv": multiply,
    "as_strided": same, "convolution": convolve, "_convolution": convolve,
    "native_batch_norm": batch_norm, "_native_batch_norm_legit": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm, "_batch_norm_no_update": batch_norm,
    "native_layer_norm": layer_norm, "native_group_norm": group_norm,
}  # fmt: skip
