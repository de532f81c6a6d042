"""A module as if some of its channels were not there: what it should answer once they are cut out.

What is normalised or averaged over channels is so over those that are left, which is what the cut module does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from plimsoll_job.techniques.prune.fitting import NotCutError, forget
from plimsoll_job.techniques.prune.following import Mode, plainly
from plimsoll_job.techniques.prune.groups import Coupling, Gone
from plimsoll_job.techniques.prune.labels import Held
from plimsoll_job.techniques.prune.left import left_positions
from plimsoll_job.techniques.prune.moves import MOVES
from plimsoll_job.techniques.prune.reading import Hear
from plimsoll_job.techniques.prune.run import name_of
from plimsoll_job.techniques.prune.sums import ALONG, REDUCES

#: What depends on how many there are along an axis, or on what stands where nothing should.
MIXES = frozenset({
    *REDUCES, *ALONG, "native_layer_norm", "native_group_norm", "native_batch_norm", "_native_batch_norm_legit",
})  # fmt: skip


def answer_without(
    module: nn.Module, example: Sequence[torch.Tensor], coupling: Coupling, gone: Gone, hear: Hear
) -> Any:
    """Return what the module answers without the channels of these classes; `hear` takes in all on the way.

    NotCutError where it computes otherwise then: what it does depends on their values.
    """
    forget(module, coupling.flow.kept)
    with plainly(), Masked(module, coupling, gone, hear):
        return module(*example)


class Masked(Mode):  # type: ignore[no-untyped-call]
    """Has every operation of a module answer zero for the channels, and leave them out where it counts or compares."""

    def __init__(self, module: nn.Module, coupling: Coupling, gone: Gone, hear: Hear) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._coupling, self._gone, self._hear = coupling, gone, hear
        self._count = 0
        #: Weights of which something is gone, by their ids; one is hidden as it is read, so that few are held at once.
        self._cut = {
            id(getattr(module.get_submodule(layer), name)): (layer, name)
            for (layer, name, _), labels in coupling.flow.weights.items()
            if gone[labels.numpy()].any()
        }
        self._written: dict[int, torch.Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation without the channels."""
        name, calls = name_of(func), self._coupling.flow.calls
        if self._count == len(calls) or name != calls[self._count].name:
            raise NotCutError("the model computes otherwise without them")
        call = calls[self._count]
        self._count += 1
        args, kwargs = tree_map(partial(self._hidden, func._schema.is_mutable), (args, kwargs or {}))
        if name in MIXES and call.inputs and left_positions(call.inputs[0][1], self._gone):
            kept = [self._kept(shape, held) for shape, held in call.inputs]
            wanted = [(shape, self._kept(shape, held)) for shape, held in call.outputs]
            whole = func(*args, **kwargs)
            output = _mixed(func, self._adapted(name, args, call.inputs[0]), kwargs, kept, wanted, whole)
        else:
            output = func(*args, **kwargs)
        outputs = [one for one in tree_leaves(output) if isinstance(one, torch.Tensor)]
        if name not in MOVES:
            for one, (_, held) in zip(outputs, call.outputs, strict=False):
                self._silence(one, held)
        self._hear(self._count - 1, outputs)
        return output

    def _hidden(self, is_written: bool, one: Any) -> Any:
        """Return a weight without what is gone; one that an operation writes into is the same from then on."""
        if id(one) not in self._cut:
            return one
        left = self._written.get(id(one))
        if left is None:
            left = _without(one, *self._cut[id(one)], self._coupling, self._gone)
        if is_written:
            self._written[id(one)] = left
        return left

    def _kept(self, shape: Sequence[int], held: Held) -> list[torch.Tensor]:
        """Return the positions that are left, along each axis."""
        left = left_positions(held, self._gone)
        return [left[axis] if axis in left else torch.arange(size) for axis, size in enumerate(shape)]

    def _adapted(self, name: str, args: Any, first: tuple[Sequence[int], Held]) -> Any:
        """Return the arguments with those sizes that a normalisation is told."""
        shape, held = first
        kept = [len(one) for one in self._kept(shape, held)]
        if name == "native_layer_norm":
            return (args[0], kept[-len(args[1]) :], *args[2:])
        if name == "native_group_norm":
            groups = args[6]
            is_gone = np.zeros(shape[1], dtype=bool)
            for labels in held.labels:
                is_gone |= self._gone[labels.numpy()].reshape(-1)
            return (*args[:4], kept[1], args[5], int((~is_gone.reshape(groups, -1)).any(axis=1).sum()), args[7])
        return args

    def _silence(self, output: torch.Tensor, held: Held) -> None:
        for labels in held.labels:
            is_gone = self._gone[labels.numpy()]
            if is_gone.any():
                output.masked_fill_(torch.from_numpy(is_gone), 0)


def _without(weight: torch.Tensor, layer: str, name: str, coupling: Coupling, gone: Gone) -> torch.Tensor:
    left = weight
    for axis in range(weight.ndim):
        labels = coupling.flow.weights.get((layer, name, axis))
        if labels is not None and (is_gone := gone[labels.numpy()]).any():
            left = left.detach().clone() if left is weight else left
            left.index_fill_(axis, torch.from_numpy(np.flatnonzero(is_gone)), 0)
    return left


def _mixed(  # noqa: PLR0917 — an operation, and what is left of what it takes and makes
    func: Any,
    args: Any,
    kwargs: Any,
    kept: Sequence[Sequence[torch.Tensor]],
    outputs: Sequence[tuple[Sequence[int], Sequence[torch.Tensor]]],
    whole: Any,
) -> Any:
    """Return what an operation makes of what is left, with zeros for what is not, laid out as what it made of all."""
    taken, made = iter(kept), iter(outputs)

    def take(one: Any) -> Any:
        if not isinstance(one, torch.Tensor):
            return one
        for axis, positions in enumerate(next(taken)):
            one = one.index_select(axis, positions)
        return one

    def put(one: Any) -> Any:
        if not isinstance(one, torch.Tensor) or (told := next(made, None)) is None:
            return one
        shape, positions = told
        # Laid out as it was, so that what follows is computed as it was.
        filled = torch.zeros_like(next(laid_out))
        if [len(each) for each in positions] == list(one.shape):
            filled[
                tuple(
                    each.reshape([-1 if at == axis else 1 for at in range(len(shape))])
                    for axis, each in enumerate(positions)
                )
            ] = one
        return filled

    laid_out = iter([one for one in tree_leaves(whole) if isinstance(one, torch.Tensor)])
    args, kwargs = tree_map(take, (args, kwargs))
    return tree_map(put, func(*args, **kwargs))
