"""Rules of operations that move positions, leave some out, or lay tensors side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from plimsoll_job.techniques.prune.labels import Held, narrowed, regrouped, spanned, unsqueezed
from plimsoll_job.techniques.prune.run import NotFollowedError, Run, argument, name_of, tensors_in

#: What moves positions or leaves some out: of labels it makes what it makes of the numbers.
MOVES = frozenset({
    "view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "expand", "slice", "select",
    "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk", "unsafe_chunk", "unbind",
    "squeeze", "unsqueeze", "flip", "roll", "repeat", "index_select", "index", "_unsafe_index", "gather", "narrow",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "constant_pad_nd", "unfold",
    "im2col", "diagonal", "embedding", "reflection_pad1d", "reflection_pad2d", "replication_pad1d",
    "replication_pad2d", "rot90", "movedim", "repeat_interleave", "take_along_dim",
})  # fmt: skip
#: What chooses positions of one axis, that of its second argument, by the numbers of a tensor.
CHOOSES = frozenset({"gather", "index_select", "embedding"})
VIEWS = frozenset({"view", "_unsafe_view", "reshape", "_reshape_alias"})


def move(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """What moves positions moves their labels."""
    shape, held = run.given[0]
    for extra in tensors_in(args[1:], kwargs):
        for labels in run.held(extra).labels:
            run.flow.atoms.keep(labels, f"they choose positions in {run.at}")
    of_input = any(run.held(one).of_input for one in tensors_in(args, kwargs))
    if name_of(func) in {"channel_shuffle", "native_channel_shuffle"}:
        for one in held.labels:
            if spanned(one) == {1}:
                # It takes as many from each group, and the same ones.
                rows = one.reshape(args[1], -1)
                run.flow.atoms.join(rows.amax(0, keepdim=True), rows, f"they are shuffled in {run.at}")
    chosen, why = _chosen_along(run, func, args, kwargs), f"values of the inputs choose among them, at {name_of(func)}"
    whole = [run.flow.hold(labels, chosen, f"{why} in {run.at}") for labels in held.labels]
    # Labels of what has no numbers would be lost along its other axes.
    laid_out = [labels if 0 in shape else labels.expand(shape) for labels in whole if labels is not None]
    moved = [_moved(labels, func, args, kwargs) for labels in laid_out]
    found = []
    for number, output in enumerate(outputs):
        kept = []
        for parts in moved:
            labels = narrowed(parts[number])
            if labels.numel() > 1:
                kept.append(labels)
            elif bool(labels.any()):
                run.flow.atoms.keep(labels, f"a single one is taken out in {run.at}")
        free = _free_after(name_of(func), args, held, shape, output.shape)
        found.append(Held(tuple(_apart(run, kept)), free, of_input))
    return found


def _chosen_along(run: Run, func: Any, args: Any, kwargs: Any) -> frozenset[int]:
    """Return the axes along which positions are chosen by what the model is given: other samples choose others."""
    if name_of(func) in {"index", "_unsafe_index"}:
        found, axis = set[int](), 0
        for one in args[1]:
            # A mask chooses along all of its axes.
            width = one.ndim if one is not None and one.dtype in {torch.bool, torch.uint8} else 1
            if one is not None and run.held(one).of_input:
                found.update(range(axis, axis + width))
            axis += width
        return frozenset(found)
    if name_of(func) in CHOOSES and any(run.held(one).of_input for one in tensors_in(args[1:], kwargs)):
        axis = 0 if name_of(func) == "embedding" else argument(func, args, kwargs, 1)
        return frozenset({axis % args[0].ndim})
    return frozenset()


def _apart(run: Run, labels: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return labels no two of which depend on the same axis; what came to lie on one axis together is kept."""
    found: list[torch.Tensor] = []
    for one in labels:
        if any(spanned(one) & spanned(other) for other in found):
            run.flow.atoms.keep(one, f"they are laid out beside others in one axis in {run.at}")
        else:
            found.append(one)
    return found


def _moved(labels: torch.Tensor, func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Return the labels as the operation moves them."""
    name = name_of(func)
    rest = args[1:]
    if name in VIEWS:
        if not isinstance(rest[0], (list, tuple, torch.Size)):
            raise NotFollowedError
        return [labels.reshape(rest[0])]
    if name == "embedding":
        return [labels[rest[0]]]
    if name == "constant_pad_nd":
        rest = rest[:1]
    try:
        with _unwatched():
            output = func(labels, *rest, **kwargs)
    except (RuntimeError, NotImplementedError):
        with _unwatched():
            # Some are not written for whole numbers; labels are far below what a double tells apart.
            output = tree_map(
                lambda one: one.long() if isinstance(one, torch.Tensor) else one, func(labels.double(), *rest, **kwargs)
            )
    return tensors_in(output)


def _unwatched() -> Any:
    return torch.utils._python_dispatch._disable_current_modes()


def _free_after(name: str, args: Any, held: Held, old: Sequence[int], new: Sequence[int]) -> frozenset[int]:
    """Return the axes of the new shape that take any size."""
    if len(held.free) == len(old) and name not in {"embedding"}:
        return frozenset(range(len(new)))
    if name == "expand":
        lead = len(new) - len(old)
        grown = {axis for axis in range(len(new)) if axis < lead or old[axis - lead] != new[axis]}
        return frozenset(grown | {lead + axis for axis in held.free})
    if name in VIEWS or name in {"unsqueeze", "squeeze"}:
        return frozenset(
            to
            for olds, news in regrouped(old, new)
            for to in news
            if all(axis in held.free or old[axis] == 1 for axis in olds)
        )
    if name in {"permute", "transpose", "t"}:
        axes = _permutation(name, args, len(old))
        return frozenset(to for to, axis in enumerate(axes) if axis in held.free)
    return held.free if len(old) == len(new) else frozenset()


def _permutation(name: str, args: Any, ndim: int) -> list[int]:
    if name == "permute":
        return [axis % ndim for axis in args[1]]
    axes = list(range(ndim))
    first, second = (0, 1) if name == "t" else (args[1] % ndim, args[2] % ndim)
    if ndim > 1:
        axes[first], axes[second] = axes[second], axes[first]
    return axes


def join(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """Concatenation and stacking: what lies along the axis is side by side, all else goes together."""
    (output,) = outputs
    tensors, axis = args[0], argument(func, args, kwargs, 1, 0) % output.ndim
    if name_of(func) == "stack":
        pairs = [(unsqueezed(run.held(one), axis), _with_axis(one.shape, axis)) for one in tensors]
    else:
        pairs = [(run.held(one), tuple(one.shape)) for one in tensors if one.ndim == output.ndim]
    across = [
        (
            Held(tuple(one for one in held.labels if axis not in spanned(one)), held.free, held.of_input),
            _with(shape, axis),
        )
        for held, shape in pairs
    ]
    why = f"they are laid beside what stays in {run.at}"
    met = run.flow.meet(across, _with(output.shape, axis), why)
    found = list(met.labels)
    rows = [[one for one in held.labels if axis in spanned(one)] for held, _ in pairs]
    for number in range(max(map(len, rows), default=0)):
        parts = [
            (row[number] if number < len(row) else torch.zeros((1,) * output.ndim, dtype=torch.int64)).expand(shape)
            for row, (_, shape) in zip(rows, pairs, strict=True)
        ]
        with _unwatched():
            found.append(narrowed(torch.cat(parts, dim=axis)))
    free = (met.free - {axis}) | ({axis} if all(axis in held.free for held, _ in pairs) else set())
    return [Held(tuple(_apart(run, found)), frozenset(free), met.of_input)]


def _with(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return tuple(1 if at == axis else size for at, size in enumerate(shape))


def _with_axis(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis:])


def gate(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """One half of what lies along an axis gates the other."""
    shape, held = run.given[0]
    axis = argument(func, args, kwargs, 1, -1) % len(shape)
    halves: list[list[torch.Tensor]] = [[], []]
    for labels in held.labels:
        parts = labels.expand(shape).chunk(2, dim=axis)
        for half, part in zip(halves, parts, strict=True):
            half.append(narrowed(part))
    pairs = [(Held(tuple(half), held.free, held.of_input), tuple(outputs[0].shape)) for half in halves]
    return [run.flow.meet(pairs, outputs[0].shape, f"they gate what stays in {run.at}")]


def same(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """Other strides of the same shape, or of a tensor that is laid out in a row."""
    shape, held = run.given[0]
    if tuple(outputs[0].shape) != shape:
        raise NotFollowedError
    return [held]
