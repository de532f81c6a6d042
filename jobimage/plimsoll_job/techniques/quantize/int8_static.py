"""Int8 static quantization by ONNX Runtime: QDQ form, weights per channel, activation ranges from calibration data."""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from plimsoll_api.steps.quantize import SAFE_WEIGHT_BITS
from plimsoll_job.export.lean import LeanModel, read_lean
from plimsoll_job.scratch import Scratch
from plimsoll_job.techniques.quantize.float_model import FloatModel, quiet
from plimsoll_job.techniques.quantize.layers import CONVOLUTIONS, LINEAR, Layer
from plimsoll_job.techniques.quantize.ranges import Ranges
from plimsoll_job.techniques.quantize.region import int8_nodes, read_floats_as_they_are

PRODUCTS = CONVOLUTIONS | LINEAR


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
