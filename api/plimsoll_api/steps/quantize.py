"""The quantize step: the number formats that layers get, and the layers that stay float."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Model
from plimsoll_api.rules import Pattern
from plimsoll_api.values import list_of

LayerName = Annotated[
    str,
    Pattern(
        r"[A-Za-z0-9_/:-]([A-Za-z0-9_./:-]*[A-Za-z0-9_/:-])?",
        "the name of a module as torch names it, such as classifier.4 or encoder.layer.0",
        253,
    ),
]


class QuantizeScheme(StrEnum):
    """The number format of weights, and of what is computed with them."""

    FLOAT16 = "Float16"
    BFLOAT16 = "BFloat16"
    INT8_DYNAMIC = "Int8Dynamic"
    INT8_STATIC = "Int8Static"
    INT4_WEIGHT_ONLY = "Int4WeightOnly"
    FLOAT8 = "Float8"


#: The schemes that take the ranges of activations from calibration data.
NEED_CALIBRATION = frozenset({QuantizeScheme.INT8_STATIC})


class Exclusion(Model):
    """The layers that stay float."""

    layers: list[LayerName] = Field(
        min_length=1,
        max_length=256,
        description="Modules by their names in the model; a name stands for all layers within the module.",
        json_schema_extra=list_of("set"),
    )


class Quantize(Model):
    """Store weights in a smaller number format, and compute in it where the scheme says so."""

    scheme: QuantizeScheme = Field(
        description="Int8Static: weights and activations in int8, ranges from data.calibration; for convolutions and "
        "linear layers. Int8Dynamic: linear layers compute in int8, activations by their range in each run; embeddings "
        "are stored in int8, convolutions stay float. Int4WeightOnly: weights of linear layers in blocks of 32 by 4 "
        "bits. Float16 and BFloat16: all weights stored in half the bytes, computed in float32. Float8: weights stored "
        "in 8-bit floats; needs a GPU."
    )
    exclude: Exclusion | None = Field(default=None, description="The layers that stay float.")

    @property
    def needs_calibration(self) -> bool:
        """Whether the step reads data.calibration."""
        return self.scheme in NEED_CALIBRATION


#: CEL that is true for a step `s` that quantizes with calibration data.
CEL_NEEDS_CALIBRATION = (
    "has(s.quantize) && s.quantize.scheme in [" + ", ".join(f"'{scheme}'" for scheme in sorted(NEED_CALIBRATION)) + "]"
)
