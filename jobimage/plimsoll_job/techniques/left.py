"""What a step left as it was: whole, dense or float. Found by comparing the weights before it and after.

A technique adds why it left something, and which layers it could have changed and had no need to. What else stayed as
it was is told all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from onnx import TensorProto, helper
from torch import nn

from plimsoll_api.artifact import Leftover
from plimsoll_job.export.lean import LeanModel

#: Layers that a record names: all records of a job share the 256 KiB of its report.
MOST = 40
#: A smaller share of a layer's weights that are zero now is chance.
FEW = 1e-3
#: Biases and normalisation, which no format or cut is worth by itself, are told of from this share of the bytes on.
TOLD_OF_VECTORS = 0.05
#: Kinds of layers that steps leave, and why; of others a step knows no way to change them.
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
WHYS = {
    "prune": {
        "Embedding": "its width is that of all layers that follow",
        "EmbeddingBag": "its width is that of all layers that follow",
    },
    "factorize": dict.fromkeys(RECURRENT, "torch has no recurrent layer of factors"),
}
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})


@dataclass(frozen=True)
class Held:
    """What a layer holds itself: its kind, the bytes of its weights, how many are not zero, whether it has a matrix."""

    kind: str
    size_bytes: int
    nonzero: int
    has_matrix: bool


def held_by_layer(module: nn.Module) -> dict[str, Held]:
    """Return what each layer holds, by its name; what several share is the first one's."""
    held: dict[str, Held] = {}
    seen: set[int] = set()
    for name, layer in module.named_modules():
        own = [one for one in layer.parameters(recurse=False) if id(one) not in seen]
        seen.update(map(id, own))
        if own:
            held[name] = Held(
                type(layer).__name__,
                sum(one.nbytes for one in own),
                sum(int(one.count_nonzero()) for one in own),
                any(one.ndim > 1 for one in own),
            )
    return held


def leave(layer: str, kind: str, reason: str) -> Leftover:
    """Return why a technique leaves a layer; its share is found when the step is done."""
    return Leftover(layer=layer, kind=kind, share=0, reason=reason)


def why_left(technique: str, kind: str) -> str:
    """Return why a technique leaves a layer of this kind that it told nothing of."""
    return WHYS.get(technique, {}).get(kind, f"{technique} knows no way to change it")


def left_in_module(
    before: Mapping[str, Held],
    after: Mapping[str, Held],
    told: Iterable[Leftover],
    reached: Collection[str],
    why: Callable[[str], str],
) -> list[Leftover]:
    """Return the layers that are as large and as dense as before, the largest first.

    `told` has the reasons that the technique knows, of layers or of what they lie in, `reached` the names of layers, or
    of their weights, that it could have changed; `why` tells the reason of all others by their kind.
    """
    left = _Left(sum(held.size_bytes for held in before.values()))
    now = _by_layer_of(before, after)
    reasons = {one.layer: one for one in told}
    for name, held in before.items():
        size_bytes, nonzero = now.get(name, (0, 0))
        if size_bytes < held.size_bytes or nonzero < (1 - FEW) * held.nonzero:
            continue
        known = next((reasons[place] for place in _places(name) if place in reasons), None)
        if known is not None:
            left.add(known.layer or known.kind, known.kind, held.size_bytes, known.reason)
        elif not held.has_matrix:
            left.vectors_bytes += held.size_bytes
        elif name not in reached and not any(one.rpartition(".")[0] == name for one in reached):
            left.add(name or held.kind, held.kind, held.size_bytes, why(held.kind))
    return left.told()


def largest_left(
    technique: str, module: nn.Module, told: Iterable[Leftover], reached: Collection[str] = (), most: int = 3
) -> str:
    """Return in words the largest layers that the technique cannot change, and why; empty where it can change all."""
    held = held_by_layer(module)
    left = left_in_module(held, held, told, reached, partial(why_left, technique))[:most]
    return "; ".join(f"{one.layer} ({one.kind}, {one.share:.0%} of the bytes): {one.reason}" for one in left)


def left_in_graph(
    before: LeanModel, after: LeanModel, layers: Mapping[str, str], reasons: Mapping[str, str], why: str
) -> list[Leftover]:
    """Return what stayed float in a graph whose constants got another format, the largest first.

    `layers` has the names of those nodes that are layers, `reasons` why the weights of a node stayed float, both by the
    names of nodes; `why` is the reason of all others.
    """
    constants = {one.name: one for one in before.proto.graph.initializer if one.data_type in FLOATS}
    sizes = {name: _size_bytes(one) for name, one in constants.items()}
    floats = {one.name: _size_bytes(one) for one in after.proto.graph.initializer if one.data_type in FLOATS}
    left = _Left(sum(sizes.values()))
    unseen = set(sizes)
    for node in before.proto.graph.node:
        own = [name for name in node.input if name in unseen]
        unseen.difference_update(own)
        stayed_bytes = sum(sizes[name] for name in own if _stays(name, sizes[name], floats))
        largest = max(own, key=lambda name: sizes[name], default="")
        if not stayed_bytes:
            continue
        if _stays(largest, sizes[largest], floats) and _is_matrix(constants[largest]):
            left.add(layers.get(node.name, node.name), node.op_type, stayed_bytes, reasons.get(node.name, why))
        else:
            left.vectors_bytes += stayed_bytes
    return left.told()


@dataclass
class _Left:
    whole_bytes: int
    vectors_bytes: int = 0
    _found: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)

    def add(self, layer: str, kind: str, size_bytes: int, reason: str) -> None:
        before, _ = self._found.get((layer, kind), (0, reason))
        self._found[layer, kind] = before + size_bytes, reason

    def told(self) -> list[Leftover]:
        """Return one row a layer; the smallest of many share one."""
        rows = [
            self._row(layer, kind, size_bytes, reason) for (layer, kind), (size_bytes, reason) in self._found.items()
        ]
        if self.vectors_bytes > TOLD_OF_VECTORS * self.whole_bytes:
            few = "biases, normalisation and other vectors are left as they are by every step"
            rows.append(self._row("vectors", "vectors", self.vectors_bytes, few))
        rows.sort(key=lambda one: -one.share)
        if len(rows) <= MOST:
            return rows
        others, rest = rows[MOST - 1 :], min(1.0, sum(one.share for one in rows[MOST - 1 :]))
        reasons = "; ".join(dict.fromkeys(one.reason for one in others))
        return [*rows[: MOST - 1], Leftover(layer=f"{len(others)} others", kind="layers", share=rest, reason=reasons)]

    def _row(self, layer: str, kind: str, size_bytes: int, reason: str) -> Leftover:
        share = round(min(1.0, size_bytes / max(self.whole_bytes, 1)), 6)
        return Leftover(layer=layer, kind=kind, share=share, reason=reason)


def _by_layer_of(before: Mapping[str, Held], after: Mapping[str, Held]) -> dict[str, tuple[int, int]]:
    """Return the bytes, and those weights that are not zero, of what each layer has become: what lies in its place."""
    now: dict[str, tuple[int, int]] = {}
    for name, held in after.items():
        owner = next((place for place in _places(name) if place in before), name)
        size_bytes, nonzero = now.get(owner, (0, 0))
        now[owner] = size_bytes + held.size_bytes, nonzero + held.nonzero
    return now


def _places(name: str) -> Iterator[str]:
    """Yield the name, and then those of the modules around it, the nearest first."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _stays(name: str, size_bytes: int, floats: Mapping[str, int]) -> bool:
    """Return whether a constant is float still; a copy made for one node has a longer name of the same beginning."""
    return name in floats or any(
        other.startswith(f"{name}_") and copied_bytes == size_bytes for other, copied_bytes in floats.items()
    )


def _is_matrix(constant: TensorProto) -> bool:
    return bool(max(constant.dims, default=1) < math.prod(constant.dims))


def _size_bytes(constant: TensorProto) -> int:
    return int(math.prod(constant.dims)) * int(helper.tensor_dtype_to_np_dtype(constant.data_type).itemsize)
