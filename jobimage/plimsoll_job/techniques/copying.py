"""Copies of modules that share tensors, or have others in the place of some."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def copied(module: M, others: Mapping[int, torch.Tensor] | None = None) -> M:
    """Return a copy of the module, with these tensors in the place of those whose ids they are given by.

    A tensor that the module computed and kept is copied without what autograd knows of it, which cannot be.
    """
    memo: dict[int, object] = dict(others or {})
    for tensor in kept_tensors(module):
        if id(tensor) not in memo and not tensor.is_leaf:
            memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(module, memo)


def sharing(module: M) -> M:
    """Return a copy of the module that has the same parameters and buffers."""
    held = (*module.parameters(), *module.buffers())
    return copied(module, {id(tensor): tensor for tensor in held})


def kept_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the tensors that layers hold beside their parameters and buffers, in rows and dictionaries too."""
    for layer in module.modules():
        for attribute, value in vars(layer).items():
            if attribute not in {"_parameters", "_buffers", "_modules"}:
                yield from _tensors(value)


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
