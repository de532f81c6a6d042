"""Channels of a graph, where they lie, and what of the graph tells that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import TensorProto, helper

from plimsoll_job.export.lean import LeanModel, read_by


@dataclass(frozen=True)
class Where:
    """Where channels are in a value: the axis, counted from the last, and how many entries in a row each has."""

    axis: int = -1
    repeats: int = 1


@dataclass(frozen=True)
class Factor:
    """An input of a node, a constant, that has the channels along an axis."""

    node: str
    place: int
    at: Where


@dataclass(frozen=True)
class Reader:
    """A layer that reads the channels, and its weight, which has them along an axis."""

    value: str
    at: Where
    weight: Factor


@dataclass
class Place:
    """So many channels: the constants that are divided by a factor of each, and the layers whose weights take it."""

    node: str
    channels: int
    divided: list[Factor] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    #: Why it cannot be: what else reads the channels, or computes them.
    unfit: list[str] = field(default_factory=list)
    #: The nodes of layers that read the channels and cannot take factors.
    refusing: set[str] = field(default_factory=set)

    @property
    def reading(self) -> set[str]:
        """The nodes of the layers that read the channels."""
        return {reader.weight.node for reader in self.readers}


class Unfit(Exception):  # noqa: N818 — an answer, no error
    """Why channels stay as they are."""


class Graph:
    """A graph as channels are followed through it; `shapes` are of values that it tells too little of."""

    def __init__(self, model: LeanModel, shapes: Mapping[str, Sequence[int]] | None = None) -> None:
        graph = model.proto.graph
        self.model = model
        self.nodes = list(graph.node)
        self.named = {node.name: node for node in graph.node}
        self.outputs = {value.name for value in graph.output}
        self.constants = {constant.name: constant for constant in graph.initializer}
        values = (*graph.value_info, *graph.input, *graph.output)
        self._shapes: dict[str, Sequence[int]] = {
            value.name: shape for value in values if (shape := _shape(value)) is not None
        }
        self._shapes |= shapes or {}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in {*read_by(node)}:
                self.readers[name].append(node)

    def shape(self, name: str) -> Sequence[int]:
        """Return the sizes of a value, 0 those that vary; Unfit where not even their number is known."""
        if name in self.constants:
            return list(self.constants[name].dims)
        if name not in self._shapes:
            raise Unfit("shapes on the way are not known")
        return self._shapes[name]

    def is_known(self, name: str) -> bool:
        """Return whether the shape of a value is known."""
        return name in self._shapes

    def constant(self, node: onnx.NodeProto, place: int) -> TensorProto | None:
        """Return the constant at an input of the node, None where it is computed or not given."""
        return self.constants.get(node.input[place]) if place < len(node.input) else None

    def numbers(self, name: str) -> list[int]:
        """Return a small constant as numbers; Unfit where it is computed."""
        if name not in self.constants:
            raise Unfit("axes on the way are computed")
        return [int(one) for one in self.model.array(self.constants[name]).reshape(-1)]


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of the node by their names."""
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _shape(value: onnx.ValueInfoProto) -> list[int] | None:
    kind = value.type.tensor_type
    return [one.dim_value for one in kind.shape.dim] if kind.HasField("shape") else None
