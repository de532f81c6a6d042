"""Int4 weights by ONNX Runtime's MatMulNBits: symmetric, in blocks of 32, for linear layers.

Activations are rounded to int8 by blocks as they come, and stay float between layers.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import helper

from plimsoll_job.export.lean import LeanModel
from plimsoll_job.scratch import Scratch
from plimsoll_job.techniques.quantize.float_model import FloatModel, quiet
from plimsoll_job.techniques.quantize.gemm import split_gemms
from plimsoll_job.techniques.quantize.layers import Layer

#: Weights that share one scale.
BLOCK = 32
#: MatMulNBits quantizes activations to int8 in blocks too; it computes in float32 otherwise.
COMPUTE_INT8 = 4
DOMAIN = "com.microsoft"


def to_int4(model: FloatModel, layers: Collection[Layer], _: bytes | None) -> LeanModel:
    """Return the model with the weights of these linear layers in 4 bits."""
    # It imports sympy: a second or two, which no other scheme should pay.
    from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: PLC0415
        DefaultWeightOnlyQuantConfig,
        DefaultWeightOnlyQuantizer,
    )

    quantizer = DefaultWeightOnlyQuantizer(
        DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=COMPUTE_INT8)
    )
    changed, scratch = model.lean(), Scratch()
    chosen = {layer.node for layer in layers}
    split_gemms(changed, chosen)
    graph = changed.proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    nodes, done = [], set()
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" and node.name in chosen else None
        if weight is None:
            nodes.append(node)
            continue
        # ONNX Runtime's own holds all weights.
        alone = onnx.GraphProto(initializer=[changed.alone(weight)])
        with quiet():
            nodes += quantizer.quantize_matmul(node, [graph, alone])
        if weight.name not in done:
            changed.take(alone.initializer[1:], scratch)
            done.add(weight.name)
    if DOMAIN not in {opset.domain for opset in changed.proto.opset_import}:
        changed.proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    changed.set_nodes(nodes)
    changed.drop_unread()
    return changed
