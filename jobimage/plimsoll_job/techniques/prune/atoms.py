"""Positions on the axes of weights that can only be deleted together, and those that must stay."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

#: The label of a position that is no atom: nothing would take it away.
NONE = 0

Classes = NDArray[np.int64]


class Atoms:
    """Atoms are numbers from 1 on, each a position on an axis of a weight; labels are tensors of them.

    Joined ones are of one class, which goes as a whole or stays.
    """

    def __init__(self) -> None:
        self._parent = np.zeros(1, dtype=np.int64)
        self._kept: list[tuple[NDArray[np.int64], str]] = []

    def make(self, count: int) -> torch.Tensor:
        """Return the labels [count] of new atoms."""
        first = len(self._parent)
        self._parent = np.concatenate([self._parent, np.arange(first, first + count)])
        return torch.arange(first, first + count)

    def join(self, some: torch.Tensor, others: torch.Tensor, reason: str = "") -> None:
        """Let the atoms of two labels of shapes that broadcast go together; what meets no atom is kept."""
        left, right = np.broadcast_arrays(some.numpy(), others.numpy())
        both = (left != NONE) & (right != NONE)
        for lonely in (left[~both & (left != NONE)], right[~both & (right != NONE)]):
            if lonely.size:
                self._kept.append((np.unique(lonely), reason))
        left, right = left[both], right[both]
        while True:
            roots, other_roots = self.classes(left), self.classes(right)
            apart = roots != other_roots
            if not apart.any():
                return
            left, right = roots[apart], other_roots[apart]
            self._parent[np.maximum(left, right)] = np.minimum(left, right)

    def keep(self, labels: torch.Tensor, reason: str) -> None:
        """Let the atoms stay, with the reason."""
        found = np.unique(labels.numpy())
        self._kept.append((found[found != NONE], reason))

    def classes(self, atoms: NDArray[np.int64]) -> Classes:
        """Return the class of each atom, the number of one of its own."""
        while True:
            parents = self._parent[atoms]
            above = self._parent[parents]
            if np.array_equal(parents, above):
                return parents
            self._parent[atoms] = above
            atoms = above

    def all_classes(self) -> Classes:
        """Return the class of every atom, by its number."""
        return self.classes(np.arange(len(self._parent)))

    def reasons(self) -> dict[int, str]:
        """Return why classes stay, by class: the first reason that was given."""
        told: dict[int, str] = {}
        for atoms, reason in self._kept:
            for one in np.unique(self.classes(atoms)).tolist():
                told.setdefault(one, reason)
        return told
