"""The peers by their names, and ours among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from bench.engine.case import Answer, Case

#: Each is a module of bench/engine/peers; the first two are what all are measured by.
NAMES = ("plain", "plimsoll", "torch_pruning", "onnxruntime", "torchao", "modelopt", "nncf")
#: The models that answer with vectors and not with classes.
EMBEDDINGS = ("minilm",)
PLAIN, OURS = "plain", "plimsoll"

Variant = Callable[[Case, Path], None]


@dataclass(frozen=True)
class Peer:
    """One contender; see bench/engine/peers."""

    name: str
    variants: Mapping[str, Variant]
    embedding_variants: Mapping[str, Variant]
    requirements: Sequence[str] = ()
    load: Callable[[Case, Path], Answer] | None = None

    def variants_for(self, model: str) -> Mapping[str, Variant]:
        """Return what is measured on this model; nothing where the peer is not for it."""
        return self.embedding_variants if model in EMBEDDINGS else self.variants


def peer_named(name: str) -> Peer:
    """Return the peer of this name."""
    module = import_module(f"bench.engine.peers.{name}")
    return Peer(
        name,
        module.VARIANTS,
        getattr(module, "EMBEDDING_VARIANTS", module.VARIANTS),
        getattr(module, "REQUIREMENTS", ()),
        getattr(module, "load", None),
    )
