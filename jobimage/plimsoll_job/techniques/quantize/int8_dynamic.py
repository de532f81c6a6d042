"""Int8 dynamic quantization by ONNX Runtime: weights per channel, activations by the range of each run."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode, add_infer_metadata

from plimsoll_api.steps.quantize import SAFE_WEIGHT_BITS
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.scratch import Scratch
from plimsoll_job.techniques.quantize.float_model import FloatModel, quiet
from plimsoll_job.techniques.quantize.gemm import split_gemms
from plimsoll_job.techniques.quantize.layers import Layer


def to_int8_dynamic(
    model: FloatModel, layers: Collection[Layer], _: bytes | None, weight_bits: int = SAFE_WEIGHT_BITS
) -> LeanModel:
    """Return the model with these layers in int8; embeddings are stored so, in all 8 bits, and computed in float."""
    changed = model.lean()
    chosen = [layer.node for layer in layers]
    split_gemms(changed, chosen)
    # It infers shapes anew, and fails where those that an exporter wrote differ from its own.
    del changed.proto.graph.value_info[:]
    changed.proto = onnx.shape_inference.infer_shapes(changed.proto)
    add_infer_metadata(changed.proto)
    with quiet():
        quantizer = _Quantizer(changed, chosen, weight_bits)
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    changed.drop_unread()
    return changed


class _Quantizer(ONNXQuantizer):  # type: ignore[misc]  # ONNX Runtime has no types
    """ONNX Runtime's own, as quantize_dynamic sets it up, with no more than one weight in memory."""

    model: Any

    def __init__(self, model: LeanModel, chosen: list[str], weight_bits: int) -> None:
        super().__init__(
            model.proto,
            per_channel=True,
            reduce_range=weight_bits == SAFE_WEIGHT_BITS,
            mode=QuantizationMode.IntegerOps,
            # Else it would write and read the model anew, which lacks its weights.
            static=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=None,
            nodes_to_quantize=chosen,
            nodes_to_exclude=[],
            op_types_to_quantize=["MatMul", "Gather"],
            # Types are not inferred behind operators of other domains, such as the Scaler of scikit-learn's pipelines.
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        self.static = False
        self._lean, self._scratch = model, Scratch()

    def quantize_weight_per_channel(self, weight_name: str, *settings: Any) -> Any:
        """Quantize a weight of a linear layer."""
        with self._alone(weight_name):
            return super().quantize_weight_per_channel(weight_name, *settings)

    def quantize_initializer(self, weight: onnx.TensorProto, *settings: Any) -> Any:
        """Quantize an embedding."""
        with self._alone(weight.name) as filled:
            return super().quantize_initializer(filled, *settings)

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[onnx.TensorProto]:
        """Have a model of this weight alone meanwhile, and then what was made of it in the whole one."""
        whole = self.model
        constant = self._lean.alone(next(one for one in whole.initializer() if one.name == name))
        self.model = ONNXModel(onnx.ModelProto(graph=onnx.GraphProto(initializer=[constant])))
        yield constant
        self._lean.take(self.model.initializer()[1:], self._scratch)
        self.model = whole
