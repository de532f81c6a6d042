"""Int8 static quantization by ONNX Runtime: QDQ form, weights per channel, activation ranges from calibration data."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

from plimsoll_api.steps.quantize import SAFE_WEIGHT_BITS
from plimsoll_job.export.lean import LeanModel, read_lean
from plimsoll_job.load.data import Samples
from plimsoll_job.memory import give_back
from plimsoll_job.scratch import Scratch
from plimsoll_job.sessions import open_frugally
from plimsoll_job.techniques.layout import Layout
from plimsoll_job.techniques.padding import Padding
from plimsoll_job.techniques.quantize.float_model import FloatModel, quiet
from plimsoll_job.techniques.quantize.layers import CONVOLUTIONS, LINEAR, Layer
from plimsoll_job.techniques.quantize.padding import (
    add_limits,
    add_mask,
    after_each,
    ends_of,
    find_padding_in_graph,
    replace_nodes,
)
from plimsoll_job.techniques.quantize.region import int8_nodes, read_floats_as_they_are

PRODUCTS = CONVOLUTIONS | LINEAR
#: The ranges of a model's activations, as ONNX Runtime's calibration cache keeps them: JSON.
Ranges = bytes
#: The least and the largest value of each activation, by its name.
RangeTable = Mapping[str, tuple[float, float]]
SIDES = ("lowest", "highest")


def observe_ranges(model: FloatModel, calibration: Samples) -> Ranges:
    """Return the least and the largest value of each activation over all samples, padding left out.

    As ONNX Runtime's own calibration does, which holds the weights four times meanwhile, and all activations at once.
    """
    give_back()
    scratch = Scratch()
    names = activations(model.lean().proto, model.layers)
    padding = find_padding_in_graph(model, names, calibration)
    layouts = list(dict.fromkeys(padding.layouts.values()))
    watched = model.lean()
    _reduce(watched.proto.graph, names, padding, layouts)
    watched.write_apart(scratch.path / "watched.onnx")
    session = open_frugally(scratch.path / "watched.onnx", as_it_is=True)
    reduced = []
    for part in calibration.parts():
        masks = {_input_of(layouts, layout): layout.counted(part.mask) for layout in layouts if part.mask is not None}
        reduced.append(session.run(None, dict(part.inputs) | masks))
    found = np.array(reduced, np.float32).reshape(-1, len(names), len(SIDES))
    low, high = found[:, :, 0].min(axis=0), found[:, :, 1].max(axis=0)
    ends = {name: (low[at : at + 1], high[at : at + 1]) for at, name in enumerate(names)}
    cache = scratch.path / "ranges.json"
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, ends), cache)
    return cache.read_bytes()


def _reduce(graph: onnx.GraphProto, names: Sequence[str], padding: Padding, layouts: Sequence[Layout]) -> None:
    """Make the ends of each value the graph's outputs, each computed right after the value, which need not stay.

    An input for each of the layouts tells which positions of the values that have it count.
    """
    which = {name: _input_of(layouts, layout) for name, layout in padding.layouts.items()}
    ends = {name: [f"{name}_{side}" for side in SIDES] for name in names}
    replace_nodes(graph, after_each(graph, {name: ends_of(name, which.get(name), *ends[name]) for name in names}))
    if layouts:
        add_limits(graph)
    for layout in layouts:
        add_mask(graph, _input_of(layouts, layout), layout)
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(end, TensorProto.FLOAT, []) for some in ends.values() for end in some
    )


def _input_of(layouts: Sequence[Layout], layout: Layout) -> str:
    return f"counted_{layouts.index(layout)}"


def activations(model: onnx.ModelProto, layers: Collection[Layer]) -> list[str]:
    """Return the names of the float values that nodes which are quantized read or write."""
    graph = model.graph
    taken = int8_nodes(graph, layers)
    touched = {name for node in graph.node if node.name in taken for name in (*node.input, *node.output)}
    values = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
    constants = {constant.name for constant in graph.initializer}
    floats = {name for name, value in values.items() if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return sorted((touched & floats) - constants)


def read_ranges(ranges: Ranges) -> RangeTable:
    """Return the ranges as numbers; ONNX Runtime keeps each end as a list of one."""
    table = json.loads(ranges)["data"]
    return {name: tuple(float(np.ravel(row[side]["data"])[0]) for side in SIDES) for name, row in table.items()}  # type: ignore[misc]


def to_int8_static(
    model: FloatModel, layers: Collection[Layer], ranges: Ranges | None, weight_bits: int = SAFE_WEIGHT_BITS
) -> LeanModel:
    """Return the model with these layers in int8, and what lies between convolutions too, but for what is kept float.

    Activations are unsigned: with signed ones ONNX Runtime dequantizes weights anew in each run, slower than in float.
    Weights that are multiplied have `weight_bits`, those that are looked up all 8.
    Zero weights stay zero. Linear layers answer in float: what lies between those of transformers has no int8 kernels
    worth the rounding.
    """
    assert ranges is not None  # noqa: S101 — the scheme observes them
    chosen = {layer.node: layer for layer in layers}
    graph = model.lean().proto.graph
    taken = int8_nodes(graph, layers, model.kept)
    scratch = Scratch()
    cache, quantized = scratch.path / "ranges.json", scratch.path / "quantized.onnx"
    cache.write_bytes(ranges)
    with quiet():
        quantize_static(
            str(model.path),
            str(quantized),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=cache,
            nodes_to_quantize=sorted(taken),
            # Else it would be in memory once more while it is written.
            use_external_data_format=True,
            extra_options={
                "ActivationSymmetric": False,
                "WeightSymmetric": True,
                "MatMulConstBOnly": True,
                # As Int8Dynamic has it: types are not inferred behind operators of other domains.
                "DefaultTensorType": onnx.TensorProto.FLOAT,
                "TensorQuantOverrides": {
                    chosen[node.name].weight: [{"axis": _channel_axis(node), "reduce_range": True}]
                    for node in graph.node
                    if weight_bits == SAFE_WEIGHT_BITS and node.name in chosen and node.op_type in PRODUCTS
                },
                "OpTypesToExcludeOutputQuantization": sorted(LINEAR),
            },
        )
    made = read_lean(quantized, scratch)
    read_floats_as_they_are(made.proto.graph, taken)
    return made


def _channel_axis(node: onnx.NodeProto) -> int:
    """Return the axis of the node's weight that has a scale for each entry, as ONNX Runtime chooses it."""
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1
