"""What a tensor's axes hold: labels of atoms along those whose positions can go, and which axes adapt to any size.

Labels broadcast to the tensor's shape: of size 1 along axes on which the atom does not depend. A position of the tensor
goes with the atom of any of its labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from plimsoll_job.techniques.prune.atoms import NONE


@dataclass(frozen=True)
class Held:
    """What is known of one tensor; its axes of `free` would take any size, as those of a constant made on the way."""

    labels: tuple[torch.Tensor, ...] = ()
    free: frozenset[int] = frozenset()
    of_input: bool = False


def spanned(labels: torch.Tensor) -> frozenset[int]:
    """Return the axes on which the atom depends."""
    return frozenset(axis for axis, size in enumerate(labels.shape) if size > 1)


def narrowed(labels: torch.Tensor) -> torch.Tensor:
    """Return labels of size 1 along axes on which the atom does not depend; what is no atom may be any."""
    for axis, size in enumerate(labels.shape):
        if size == 1:
            continue
        if labels.stride(axis) == 0:
            labels = labels.narrow(axis, 0, 1)
            continue
        largest = labels.amax(axis, keepdim=True)
        if bool(((labels == largest) | (labels == NONE)).all()):
            labels = largest
    return labels


def along(vector: torch.Tensor, axis: int, ndim: int) -> torch.Tensor:
    """Return labels [n] as those of an axis of a tensor of so many."""
    return vector.reshape([-1 if at == axis else 1 for at in range(ndim)])


def without(labels: torch.Tensor, axes: Iterable[int], *, keepdim: bool) -> torch.Tensor:
    """Return labels that do not depend on these axes any more, of size 1 or gone."""
    axes = sorted(axes)
    return labels.amax(axes, keepdim=keepdim) if axes else labels


def regrouped(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return which axes of an old shape became which of a new one of as many elements, the fewest at a time."""
    groups: list[tuple[list[int], list[int]]] = []
    at, to = 0, 0
    while at < len(old) or to < len(new):
        olds, news, size, wanted = [], [], 1, 1
        if at < len(old):
            olds, size, at = [at], old[at], at + 1
        if to < len(new):
            news, wanted, to = [to], new[to], to + 1
        while size != wanted:
            if size < wanted and at < len(old):
                olds, size, at = [*olds, at], size * old[at], at + 1
            elif to < len(new):
                news, wanted, to = [*news, to], wanted * new[to], to + 1
            else:
                olds, size, at = [*olds, at], size * old[at], at + 1
        groups.append((olds, news))
    return groups


def unsqueezed(held: Held, axis: int) -> Held:
    """Return what a tensor holds with another axis of size 1."""
    free = frozenset(one + (one >= axis) for one in held.free)
    return Held(tuple(labels.unsqueeze(axis) for labels in held.labels), free, held.of_input)
