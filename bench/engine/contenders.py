"""The peers by their names, and ours among them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from bench.engine.case import Answer, Case

#: Each is a module of bench/engine/peers; the first two are what all are measured by.
NAMES = ("plain", "plimsoll", "torch_pruning", "onnxruntime", "torchao", "modelopt", "nncf")
PLAIN, OURS = "plain", "plimsoll"

Variant = Callable[[Case, Path], None]


@dataclass(frozen=True)
class Peer:
    """One contender; see bench/engine/peers."""

    name: str
    variants: Mapping[str, Variant]
    requirements: Sequence[str] = ()
    models: Collection[str] | None = None
    load: Callable[[Case, Path], Answer] | None = None

    def takes(self, model: str) -> bool:
        """Whether the peer is for this model."""
        return self.models is None or model in self.models


def peer_named(name: str) -> Peer:
    """Return the peer of this name."""
    module = import_module(f"bench.engine.peers.{name}")
    return Peer(
        name,
        module.VARIANTS,
        getattr(module, "REQUIREMENTS", ()),
        getattr(module, "MODELS", None),
        getattr(module, "load", None),
    )
