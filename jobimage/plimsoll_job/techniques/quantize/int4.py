"""Int4 weights by ONNX Runtime's MatMulNBits: symmetric, in blocks of 32, for linear layers.

Activations are rounded to int8 by blocks as they come, and stay float between layers.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from plimsoll_job.techniques.quantize.float_model import FloatModel, quiet
from plimsoll_job.techniques.quantize.gemm import split_gemms
from plimsoll_job.techniques.quantize.layers import Layer

#: Weights that share one scale.
BLOCK = 32
#: MatMulNBits quantizes activations to int8 in blocks too; it computes in float32 otherwise.
COMPUTE_INT8 = 4


def to_int4(model: FloatModel, layers: Collection[Layer], _: bytes | None) -> onnx.ModelProto:
    """Return the model with the weights of these linear layers in 4 bits."""
    source = model.copy()
    chosen = {layer.node for layer in layers}
    split_gemms(source, chosen)
    others = [node.name for node in source.graph.node if node.op_type == "MatMul" and node.name not in chosen]
    # It imports sympy: a second or two, which no other scheme should pay.
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # noqa: PLC0415

    quantizer = MatMulNBitsQuantizer(
        source, block_size=BLOCK, is_symmetric=True, accuracy_level=COMPUTE_INT8, nodes_to_exclude=others
    )
    with quiet():
        quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized
