"""Linear layers of a graph as ONNX Runtime quantizes them: it knows one way to write each, and graphs have more."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from plimsoll_job.export.lean import LeanModel, Numbers
from plimsoll_job.techniques.quantize.gemm import split_gemms

#: On which axis of its weight a layer has its outputs, each with a scale of its own.
OUTPUT_AXES: Mapping[str, int] = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": 1}


def regularize(model: LeanModel) -> None:
    """Write the bias of each Gemm as one number an output, and let weights be read along one axis; answers stay.

    Its factors become part of weight and bias. A bias that differs between the rows of what is multiplied becomes an
    addition. Of a weight that layers read along both axes, as a tied autoencoder does, the others get one of their own.
    """
    _take_factors_in(model)
    _flatten_biases(model)
    _read_along_one_axis(model)


def _take_factors_in(model: LeanModel) -> None:
    graph = model.proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    for node in graph.node:
        # The weight is multiplied by one factor, the bias by the other.
        for place, factor in enumerate(("alpha", "beta"), 1) if node.op_type == "Gemm" else ():
            given = next((one for one in node.attribute if one.name == factor), None)
            constant = constants.get(node.input[place]) if place < len(node.input) else None
            if given is None or given.f == 1 or constant is None:
                continue
            name, source = f"{constant.name}_{node.name}_{factor}", model.source(constant)
            model.add(name, constant.data_type, tuple(constant.dims), partial(_scaled, source, given.f))
            constants[name] = graph.initializer[-1]
            node.input[place] = name
            given.f = 1


def _scaled(source: Numbers, factor: float) -> NDArray[Any]:
    weight = source()
    scaled: NDArray[Any] = weight * weight.dtype.type(factor)
    return scaled


def _flatten_biases(model: LeanModel) -> None:
    graph = model.proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    of_rows = []
    for node in graph.node:
        if node.op_type != "Gemm" or len(node.input) < 3 or node.input[1] not in constants:
            continue
        bias, outputs = constants.get(node.input[2]), constants[node.input[1]].dims[_output_axis(node)]
        if bias is None or list(bias.dims) == [outputs]:
            continue
        values = model.array(bias)
        if values.ndim == 2 and values.shape[0] > 1:
            of_rows.append(node.name)
            continue
        flat = np.ascontiguousarray(np.broadcast_to(values.reshape(-1), (outputs,)))
        node.input[2] = f"{bias.name}_{node.name}_bias"
        graph.initializer.append(numpy_helper.from_array(flat, node.input[2]))
    if of_rows:
        split_gemms(model, of_rows)
    model.drop_unread()


def _read_along_one_axis(model: LeanModel) -> None:
    graph = model.proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    first: dict[str, int] = {}
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type in OUTPUT_AXES and len(node.input) > 1 else None
        if weight is None:
            continue
        axis = _output_axis(node) % max(1, len(weight.dims))
        if axis != first.setdefault(weight.name, axis):
            name = f"{weight.name}_axis{axis}"
            if name not in constants:
                model.add(name, weight.data_type, tuple(weight.dims), model.source(weight))
                constants[name] = graph.initializer[-1]
            node.input[1] = name


def _output_axis(node: onnx.NodeProto) -> int:
    transposed = node.op_type == "Gemm" and any(one.name == "transB" and one.i for one in node.attribute)
    return 0 if transposed else OUTPUT_AXES[node.op_type]
