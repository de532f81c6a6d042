"""An ONNX graph as a torch module: its weights can be trained, and the ranges of its activations be learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from plimsoll_api.steps.quantize import SAFE_WEIGHT_BITS
from plimsoll_job.export.lean import LeanModel, Numbers
from plimsoll_job.techniques.quantize.layers import CONVOLUTIONS
from plimsoll_job.techniques.quantize.operators import OPERATORS
from plimsoll_job.techniques.quantize.ranges.min_max import RangeTable
from plimsoll_job.techniques.quantize.rounding import (
    LEAST,
    WEIGHTS_REACH,
    grid_of,
    round_activation,
    round_bias,
    round_weight,
)

#: A range is learned as the logarithm of its growth (Jain et al. 2020, arXiv 1903.08066), so that one learning rate
#: serves ranges of any size. A step of the optimizer changes it by this many times the learning rate.
RANGE_SPEED = 100.0
#: What stands here for the two uses of DequantizeLinear on a constant that is trained.
ROUND_WEIGHT, BIAS = "RoundWeight", "Bias"
SPECIAL = frozenset({"QuantizeLinear", "DequantizeLinear"})
#: Operators whose third input is added to products of integers.
BIASED = CONVOLUTIONS | {"Gemm"}


@dataclass(frozen=True)
class _Node:
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


def unknown_operators(model: onnx.ModelProto) -> list[str]:
    """Return the operators of the graph that a Network cannot compute."""
    return sorted({node.op_type for node in model.graph.node} - OPERATORS.keys() - SPECIAL)


class Network(nn.Module):
    """Answers as the graph does, in float: integers are the floats that they stand for.

    `trained` are the constants that are trained, as they were before the graph was quantized; where it stores one in
    integers, the float is rounded as it is used. `ranges` are those that the graph's activations were given; each is
    learned, but where ONNX Runtime has put another in its place. `weights_reach` is the graph's largest integer of a
    weight.
    """

    def __init__(
        self,
        model: LeanModel,
        trained: Mapping[str, Numbers] | None = None,
        ranges: RangeTable | None = None,
        weights_reach: int = WEIGHTS_REACH[SAFE_WEIGHT_BITS],
    ) -> None:
        super().__init__()
        graph = model.proto.graph
        stored = {constant.name: constant for constant in graph.initializer}
        trained = trained or {}
        self.inputs = [value.name for value in graph.input if value.name not in stored]
        self._output = graph.output[0].name
        self._weights_reach = weights_reach
        self._weight_at = {name: at for at, name in enumerate(sorted(trained))}
        self.weights = nn.ParameterList(torch.from_numpy(trained[name]().copy()) for name in self._weight_at)
        self._constants: dict[str, str] = {}
        nodes = [found for node in graph.node if (found := self._translate(model, node, stored))]
        zeros = {node.inputs[2] for node in nodes if node.operator == "QuantizeLinear"}
        for name in sorted({name for node in nodes for name in node.inputs} & stored.keys() - trained.keys()):
            array = model.array(stored[name])
            self._add_constant(name, _zero_point(array) if name in zeros else array)
        self._nodes = nodes
        self._biases = {node.outputs[0] for node in nodes if node.operator == BIAS}
        self._last_use = {name: at for at, node in enumerate(nodes) for name in node.inputs}
        self._range_at: dict[str, int] = {}
        self.growths = nn.ParameterList()
        self._add_ranges(ranges or {})

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the first output."""
        values: dict[str, Tensor] = dict(zip(self.inputs, inputs, strict=True))
        values |= {name: self.get_buffer(buffer) for name, buffer in self._constants.items()}
        values |= {name: self.weights[at] for name, at in self._weight_at.items()}
        scales: dict[str, Tensor] = {}
        for at, node in enumerate(self._nodes):
            results = self._compute(node, values, scales)
            values.update(zip(node.outputs, results, strict=False))
            for name in node.inputs:
                if self._last_use[name] == at and name != self._output:
                    values.pop(name, None)
        return values[self._output]

    def weight_names(self) -> frozenset[str]:
        """Return the trained weights, biases not among them, by the names of their parameters."""
        return frozenset(f"weights.{at}" for at in self._weight_at.values() if self.weights[at].ndim > 1)

    def learned_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return the trained constants as they are now."""
        return {name: self.weights[at].detach().cpu().numpy() for name, at in self._weight_at.items()}

    def learned_ranges(self) -> dict[str, tuple[float, float]]:
        """Return the ranges as they are now, of those that are learned."""
        with torch.no_grad():
            ends = {name: self._ends(at) for name, at in self._range_at.items()}
        return {name.removesuffix("_scale"): (low.item(), high.item()) for name, (low, high) in ends.items()}

    def _translate(self, model: LeanModel, node: onnx.NodeProto, stored: Mapping[str, TensorProto]) -> _Node | None:
        """Return the node as it is computed here; None where its output is a constant."""
        attributes = {one.name: _value_of(one) for one in node.attribute} | {"outputs": len(node.output)}
        inputs, outputs = tuple(node.input), tuple(node.output)
        if node.op_type != "DequantizeLinear":
            return _Node(node.op_type, inputs, outputs, attributes)
        constant = stored.get(inputs[0])
        if constant is None:
            return _Node("Identity", inputs[:1], outputs, {})
        name = inputs[0].removesuffix("_quantized")
        if name in self._weight_at:
            per_channel = len(stored[inputs[1]].dims) > 0
            kind = BIAS if constant.data_type == TensorProto.INT32 else ROUND_WEIGHT
            return _Node(kind, (name,), outputs, {"axis": attributes.get("axis", 1) if per_channel else None})
        scale, zero = (model.array(stored[one]) for one in inputs[1:3])
        if scale.ndim:
            shape = [-1 if at == attributes.get("axis", 1) else 1 for at in range(len(constant.dims))]
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        difference = model.array(constant).astype(np.int32) - zero.astype(np.int32)
        self._add_constant(outputs[0], difference.astype(np.float32) * scale)
        return None

    def _add_constant(self, name: str, array: NDArray[Any]) -> None:
        self._constants[name] = f"constant_{len(self._constants)}"
        self.register_buffer(self._constants[name], torch.from_numpy(np.array(array)), persistent=False)

    def _add_ranges(self, ranges: RangeTable) -> None:
        """Have those ranges learned whose grid is the one that the graph has."""
        grids = {node.inputs[1:3] for node in self._nodes if node.operator == "QuantizeLinear"}
        for scale_name, zero_name in sorted(grids):
            name = scale_name.removesuffix("_scale")
            if name not in ranges or scale_name not in self._constants:
                continue
            low, high = (torch.tensor(end, dtype=torch.float32) for end in ranges[name])
            low, high = low.clamp(max=0), high.clamp(min=0)
            scale, zero = grid_of(low, high)
            if (scale, zero) == (self._constant(scale_name), self._constant(zero_name)):
                at = self._range_at[scale_name] = len(self.growths)
                self.growths.append(torch.zeros(2))
                self.register_buffer(f"range_{at}", torch.stack([low, high]), persistent=False)

    def _constant(self, name: str) -> Tensor:
        return self.get_buffer(self._constants[name])

    def _ends(self, at: int) -> tuple[Tensor, Tensor]:
        low, high = self.get_buffer(f"range_{at}") * (RANGE_SPEED * self.growths[at]).exp()
        return low, high

    def _compute(self, node: _Node, values: Mapping[str, Tensor], scales: dict[str, Tensor]) -> Sequence[Tensor]:
        """Return the outputs; `scales` tells of values on a grid which one, and is told."""
        given: list[Any] = [values[name] if name else None for name in node.inputs]
        first, output = node.inputs[0] if node.inputs else "", node.outputs[0]
        if node.operator == "QuantizeLinear":
            at = self._range_at.get(node.inputs[1])
            scale, zero = given[1:3] if at is None else grid_of(*self._ends(at))
            scales[output] = scale
            return [round_activation(given[0], scale, zero)]
        if node.operator == ROUND_WEIGHT:
            rounded, scales[output] = round_weight(given[0], node.attributes["axis"], self._weights_reach)
            return [rounded]
        if node.operator == BIAS:
            return given
        if node.operator == "Identity" and first in scales:
            scales[output] = scales[first]
        if node.operator in BIASED and len(given) > 2 and node.inputs[2] in self._biases:
            given[2] = round_bias(given[2], scales[first] * scales[node.inputs[1]])
        results = OPERATORS[node.operator](node.attributes, *given)
        return [results] if isinstance(results, Tensor) else results


def _zero_point(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Return the zero point among the integers from LEAST on, as if all were signed."""
    return (stored.astype(np.float32) - np.iinfo(stored.dtype).min + LEAST).astype(np.float32)


def _value_of(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    return torch.from_numpy(numpy_helper.to_array(value).copy()) if isinstance(value, TensorProto) else value
