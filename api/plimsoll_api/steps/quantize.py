"""The quantize step: the number format that weights and activations get."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from plimsoll_api.model import Model


class QuantizeScheme(StrEnum):
    """The number format of weights and activations."""

    INT8_STATIC = "Int8Static"


class Quantize(Model):
    """Store and compute in a smaller number format."""

    scheme: QuantizeScheme = Field(
        description="Int8Static: ONNX Runtime static quantization in QDQ form, weights per channel, activation ranges "
        "from data.calibration."
    )
