"""What one run of a module told of its channels: its operations, and which positions go together or stay."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch

from plimsoll_job.techniques.prune.atoms import Atoms
from plimsoll_job.techniques.prune.labels import Held, spanned, without


@dataclass(frozen=True)
class Call:
    """One operation of the run: the layer that called it, what its tensors hold, and its outputs' shapes."""

    name: str
    layer: str
    inputs: tuple[tuple[tuple[int, ...], Held], ...]
    outputs: tuple[tuple[tuple[int, ...], Held], ...]


@dataclass
class Flow:
    """What one run told: atoms of all weights that it read, by layer, tensor and axis, and what joins or keeps them."""

    atoms: Atoms = field(default_factory=Atoms)
    weights: dict[tuple[str, str, int], torch.Tensor] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    #: Labels of several axes, which must go so that what is left is a block still.
    blocks: list[torch.Tensor] = field(default_factory=list)
    #: Labels that met those of a part of their axes.
    partly: list[tuple[torch.Tensor, torch.Tensor, str]] = field(default_factory=list)
    #: Labels [groups, width] of what is normalised in groups.
    grouped: list[tuple[torch.Tensor, str]] = field(default_factory=list)
    #: Labels of heads: what attention computes side by side.
    heads: list[torch.Tensor] = field(default_factory=list)
    #: Labels of what attention multiplies, queries with keys and scores with values, whether there are heads or not.
    attended: list[torch.Tensor] = field(default_factory=list)
    #: Layers and their dictionaries of tensors that they compute once and keep.
    kept: tuple[tuple[str, str], ...] = ()

    def meet(self, one: Sequence[tuple[Held, Sequence[int]]], shape: Sequence[int], at: str) -> Held:
        """Return what a tensor holds, of that shape, of which each position is made of one position of each input."""
        ndim = len(shape)
        given = [_lifted(held, of, ndim) for held, of in one]
        found: list[torch.Tensor] = []
        for number, (labels, _) in enumerate(given):
            others = [other for place, other in enumerate(given) if place != number]
            for own in labels:
                stays = {
                    axis
                    for axis in spanned(own)
                    for beside, free in others
                    if axis not in free and not any(axis in spanned(another) for another in beside)
                }
                reduced = self.hold(own, stays, at) if stays else own
                if reduced is not None:
                    self._add(found, reduced, at)
        free = frozenset.intersection(*[free for _, free in given]) if given else frozenset(range(ndim))
        return Held(tuple(found), free, any(held.of_input for held, _ in one))

    def hold(self, labels: torch.Tensor, axes: Collection[int], at: str) -> torch.Tensor | None:
        """Return the labels with positions of these axes whole: none are left of labels that depend on them alone."""
        within = spanned(labels) & set(axes)
        if not within:
            return labels
        if within == spanned(labels):
            self.atoms.keep(labels, at)
            return None
        reduced = without(labels, within, keepdim=True)
        self.atoms.join(reduced, labels, at)
        return reduced

    def _add(self, found: list[torch.Tensor], labels: torch.Tensor, at: str) -> None:
        for place, other in enumerate(found):
            mine, theirs = spanned(labels), spanned(other)
            if not mine & theirs:
                continue
            if mine == theirs:
                self.atoms.join(labels, other, at)
            elif mine < theirs:
                self.partly.append((other, labels, at))
            elif theirs < mine:
                self.partly.append((labels, other, at))
                found[place] = labels
            else:
                # What goes along the axes that they share goes as a whole along all others.
                shared, others = self.hold(labels, mine - theirs, at), self.hold(other, theirs - mine, at)
                assert shared is not None and others is not None  # noqa: S101, PT018 — they share an axis
                self.atoms.join(shared, others, at)
                found[place] = others
            return
        found.append(labels)


def _lifted(held: Held, shape: Sequence[int], ndim: int) -> tuple[list[torch.Tensor], frozenset[int]]:
    """Return the labels as those of a tensor of more axes, and the axes along which it takes any size."""
    lead = ndim - len(shape)
    labels = [one.reshape((1,) * lead + tuple(one.shape)) for one in held.labels]
    free = {*range(lead), *(lead + axis for axis in held.free)}
    return labels, frozenset(free | {lead + axis for axis, size in enumerate(shape) if size == 1})
