"""What is known of tensors while a module runs: the state that every rule of an operation reads and changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from plimsoll_job.techniques.prune.flow import Flow
from plimsoll_job.techniques.prune.labels import Held, along

#: Longer axes are vocabularies or flattened pictures, none of which go position by position.
LONGEST = 65_536
#: Axes of weights from which on they are places of a kernel.
KERNEL = 2


class Run:
    """One run of a module: what its tensors hold so far, and the layer that is being called."""

    def __init__(self, module: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
        self.flow = Flow()
        self.layer = ""
        #: Shapes and contents of the operation's tensors before it ran: one that works in place changes them.
        self.given: tuple[tuple[tuple[int, ...], Held], ...] = ()
        self._names = names_of(module)
        self._kinds = {name: type(layer).__name__ for name, layer in module.named_modules()}
        self._held: Any = WeakIdKeyDictionary()
        for one in inputs:
            self.keep(one, Held(of_input=True))

    def keep(self, tensor: torch.Tensor, held: Held) -> None:
        """Remember what a tensor holds."""
        self._held[tensor] = held

    def held(self, tensor: torch.Tensor) -> Held:
        """Return what is known of a tensor."""
        if tensor not in self._held:
            self._held[tensor] = self._first_seen(tensor)
        known: Held = self._held[tensor]
        return known

    @property
    def at(self) -> str:
        """Where the run is, for a sentence."""
        return f"{self.layer} ({self._kinds[self.layer]})" if self.layer else "the model"

    def _first_seen(self, tensor: torch.Tensor) -> Held:
        places = self._names.get(id(tensor))
        if places is None or not tensor.is_floating_point():
            return Held(free=frozenset(range(tensor.ndim)) if tensor.numel() == 1 else frozenset())
        labels = []
        for axis, size in enumerate(tensor.shape):
            if not 1 < size <= LONGEST or any(axis in stay for _, _, stay in places):
                continue
            atoms = self.flow.atoms.make(size)
            self.flow.weights |= {(layer, name, axis): atoms for layer, name, _ in places}
            labels.append(along(atoms, axis, tensor.ndim))
        return Held(tuple(labels))


def names_of(module: nn.Module) -> dict[int, list[tuple[str, str, frozenset[int]]]]:
    """Return, by the id of each parameter and buffer, all layers that hold it, its names there, and axes that stay."""
    found: dict[int, list[tuple[str, str, frozenset[int]]]] = {}
    for layer_name, layer in module.named_modules():
        for named in (layer.named_parameters, layer.named_buffers):
            for name, tensor in named(recurse=False, remove_duplicate=False):
                found.setdefault(id(tensor), []).append((layer_name, name, _whole_axes(layer, tensor)))
    return found


def _whole_axes(layer: nn.Module, tensor: torch.Tensor) -> frozenset[int]:
    if isinstance(layer, nn.Embedding):
        return frozenset({0})
    if isinstance(layer, nn.modules.conv._ConvNd) and tensor.ndim > KERNEL:
        return frozenset(range(KERNEL, tensor.ndim))
    return frozenset()


def name_of(func: Any) -> str:
    """Return the name of an operation, the same of one that works in place."""
    name: str = func.overloadpacket.__name__
    return name.rstrip("_") if not name.startswith("__") else name


class NotFollowedError(Exception):
    """A rule does not know this form of its operation."""


def tensors_in(*values: Any) -> list[torch.Tensor]:
    """Return the tensors in values, in rows and dictionaries too."""
    return [one for one in tree_leaves(values) if isinstance(one, torch.Tensor)]


def argument(func: Any, args: Any, kwargs: Any, place: int, default: Any = None) -> Any:
    """Return an argument by its place, or by its name if it was given so."""
    if place < len(args):
        return args[place]
    schema = func._schema.arguments
    return kwargs.get(schema[place].name, default) if place < len(schema) else default


def met_at(run: Run, func: Any) -> str:
    """Return why channels stay that an operation joins with what stays."""
    return f"they meet what stays, at {name_of(func)} in {run.at}"
