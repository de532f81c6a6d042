"""Int8 dynamic quantization by ONNX Runtime: weights per channel, activations by the range of each run."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from plimsoll_job.techniques.quantize.float_model import FloatModel, quiet
from plimsoll_job.techniques.quantize.gemm import split_gemms
from plimsoll_job.techniques.quantize.layers import Layer


def to_int8_dynamic(model: FloatModel, layers: Collection[Layer], _: bytes | None) -> onnx.ModelProto:
    """Return the model with these layers in int8; embeddings are stored so and computed in float."""
    source = model.copy()
    chosen = [layer.node for layer in layers]
    split_gemms(source, chosen)
    # It infers shapes anew, and fails where those that an exporter wrote differ from its own.
    del source.graph.value_info[:]
    with tempfile.TemporaryDirectory() as directory, quiet():
        quantized = Path(directory, "quantized.onnx")
        quantize_dynamic(
            source,
            str(quantized),
            op_types_to_quantize=["MatMul", "Gather"],
            nodes_to_quantize=chosen,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(str(quantized))
