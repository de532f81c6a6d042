"""Weights that layers share: one parameter under several names, which a change of the layers must not make several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn


def ties_of(module: nn.Module) -> list[tuple[str, ...]]:
    """Return the names of each parameter that has several, those of one layer among them but once."""
    names: dict[int, list[str]] = {}
    for path, layer in module.named_modules():
        for name, parameter in layer.named_parameters(path, recurse=False, remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
    return [tuple(some) for some in names.values() if len(some) > 1]


def tie(module: nn.Module, ties: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    """Make one parameter again of those of the same numbers; return the names of those that are not."""
    apart = []
    for names in ties:
        first, *others = (module.get_parameter(name) for name in names)
        if not all(one.shape == first.shape and torch.equal(one, first) for one in others):
            apart.append(names)
            continue
        for name in names[1:]:
            path, _, own = name.rpartition(".")
            setattr(module.get_submodule(path), own, first)
    return apart
