"""Weights that can be rounded with what they are multiplied with in view, and how that lies in the graph."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor
from torch.nn import functional

from plimsoll_job.export.lean import read_by
from plimsoll_job.techniques.quantize.layers import LINEAR, Layer

#: Numbers that windows of a convolution hold at once.
WINDOW_NUMBERS = 1 << 23


@dataclass(frozen=True)
class Reading:
    """What a layer reads: the value, and the windows that a convolution cuts of it; none of a linear layer."""

    value: str
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()

    def rows(self, value: Tensor, counted: Tensor | None) -> Sequence[Tensor]:
        """Return what is multiplied with the weight, [any, inputs], in parts; positions that do not count are not."""
        if not self.kernel:
            if counted is None or counted.shape[-1] != 1:
                return [value.flatten(0, -2)]
            return [value[counted[..., 0].expand(value.shape[:-1])]]
        if counted is not None:
            value = torch.where(counted, value, 0.0)
        ends = len(self.kernel)
        sides = [side for at in reversed(range(ends)) for side in (self.pads[at], self.pads[ends + at])]
        value = functional.pad(value, sides)
        if ends == 1:
            value = value.unsqueeze(2)
        fill = (1,) * (2 - ends)
        kernel, strides, dilations = ((*fill, *some) for some in (self.kernel, self.strides, self.dilations))
        most = max(1, WINDOW_NUMBERS // max(1, value[0].numel() * math.prod(kernel))) if len(value) else 1
        return [
            functional.unfold(part, kernel, dilation=dilations, stride=strides).mT.flatten(0, 1)
            for part in value.split(most)  # type: ignore[no-untyped-call]
        ]


@dataclass
class Weight:
    """A constant that layers multiply with, all of them alike."""

    constant: TensorProto
    layers: list[Layer] = field(default_factory=list)
    readings: dict[Reading, None] = field(default_factory=dict)
    #: Whether it lies as [inputs, outputs].
    turned: bool = False

    def rows(self, weight: NDArray[Any]) -> Tensor:
        """Return its numbers as [outputs, inputs]."""
        numbers = torch.from_numpy(np.array(weight, np.float32))
        return numbers.T.contiguous() if self.turned else numbers.flatten(1)

    def lying(self, rows: Tensor) -> NDArray[Any]:
        """Return the rows as the constant lies."""
        laid: NDArray[Any] = (rows.T if self.turned else rows).contiguous().numpy()
        return laid.reshape(tuple(self.constant.dims))

    @property
    def width(self) -> int:
        """How many inputs an output has."""
        dims = self.constant.dims
        return int(dims[0] if self.turned else math.prod(dims[1:]))


def find_weights(graph: onnx.GraphProto, layers: Collection[Layer]) -> tuple[list[Weight], dict[str, str]]:
    """Return the weights that can be rounded so, and why those of the other layers cannot, by their nodes."""
    constants = {constant.name: constant for constant in graph.initializer}
    asked = {layer.node: layer for layer in layers}
    readers = defaultdict(list)
    for node in graph.node:
        for name in {*read_by(node)} & constants.keys():
            readers[name].append(node)
    found: dict[str, Weight] = {}
    left: dict[str, str] = {}
    for node in graph.node:
        layer = asked.get(node.name)
        if layer is None:
            continue
        why = _why_not(node, layer)
        if why is None and any(
            reader.name not in asked or _why_not(reader, asked[reader.name]) for reader in readers[layer.weight]
        ):
            why = "its weight is read elsewhere too"
        if why is not None:
            left[node.name] = why
            continue
        weight = found.setdefault(layer.weight, Weight(constants[layer.weight], turned=_is_turned(node)))
        weight.layers.append(layer)
        weight.readings[_reading(node, tuple(constants[layer.weight].dims))] = None
    return list(found.values()), left


def _why_not(node: onnx.NodeProto, layer: Layer) -> str | None:
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if layer.operator not in LINEAR | {"Conv"}:
        return f"it is a {layer.operator}"
    if layer.stacked or layer.grouped:
        return "its inputs are in groups"
    if node.input[1] != layer.weight or given.get("transA") or given.get("alpha", 1) != 1:
        return "its weight does not stand behind what it is multiplied with"
    if layer.operator == "Conv" and given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return "its padding depends on what it reads"
    return None


def _is_turned(node: onnx.NodeProto) -> bool:
    return node.op_type in LINEAR and not any(one.name == "transB" and one.i for one in node.attribute)


def _reading(node: onnx.NodeProto, shape: tuple[int, ...]) -> Reading:
    if node.op_type != "Conv":
        return Reading(node.input[0])
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    kernel = shape[2:]
    return Reading(
        node.input[0],
        kernel,
        tuple(given.get("strides", (1,) * len(kernel))),
        tuple(given.get("dilations", (1,) * len(kernel))),
        tuple(given.get("pads", (0,) * 2 * len(kernel))),
    )
