"""The quantize step: the number formats that layers get, and the layers that stay float."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from plimsoll_api.gates import LatencyMeasurement
from plimsoll_api.model import Decimal, Fraction, Model
from plimsoll_api.rules import Pattern, Rule, Within, to_camel
from plimsoll_api.steps.training import EarlyStopping, LearningRate, Schedule
from plimsoll_api.values import list_of

LayerName = Annotated[
    str,
    Pattern(
        # Exporters join the names of what they fuse: StatefulPartitionedCall/dense/MatMul;StatefulPartitionedCall/…
        r"[!-\-/-~]([ -~]*[!-\-/-~])?",
        "the name of a module as torch names it, such as classifier.4, or of a node of an ONNX model: of ASCII "
        "characters, without a space or a dot at either end",
        512,
    ),
]

Error = Annotated[Fraction, Within("above 0 and at most 1 (100%)", above=0, at_most=1)]


class QuantizeScheme(StrEnum):
    """The number format of weights, and of what is computed with them."""

    FLOAT16 = "Float16"
    BFLOAT16 = "BFloat16"
    INT8_DYNAMIC = "Int8Dynamic"
    INT8_STATIC = "Int8Static"
    INT8_QAT = "Int8QAT"
    INT4_WEIGHT_ONLY = "Int4WeightOnly"
    FLOAT8 = "Float8"
    AUTO = "Auto"


class Compute(StrEnum):
    """What a layer computes in whose weights are halves."""

    FLOAT32 = "Float32"
    FLOAT16 = "Float16"


class RangeMethod(StrEnum):
    """Where the range of an activation ends that calibration data shows."""

    MIN_MAX = "MinMax"
    PERCENTILE = "Percentile"
    MSE = "Mse"
    ENTROPY = "Entropy"


class Rounding(StrEnum):
    """How weights are rounded to their integers."""

    NEAREST = "Nearest"
    GPTQ = "Gptq"


class Equalization(StrEnum):
    """Whether the ranges of channels are made alike before they share a scale."""

    NONE = "None"
    SMOOTH_QUANT = "SmoothQuant"


class BiasCorrection(StrEnum):
    """What becomes of the mean error that rounded weights leave in a layer's answers."""

    KEEP = "Keep"
    CORRECT = "Correct"


#: The schemes whose weights meet activations of 8 bits, in products of integers.
INT8 = frozenset({QuantizeScheme.INT8_STATIC, QuantizeScheme.INT8_DYNAMIC, QuantizeScheme.INT8_QAT})
#: Bits of such weights: sums of their products with 8 bits are exact on every processor, or with VNNI only.
SAFE_WEIGHT_BITS, FULL_WEIGHT_BITS = 7, 8

#: The schemes that read calibration data: for the ranges of activations, or to compare answers.
NEED_CALIBRATION = frozenset({QuantizeScheme.INT8_STATIC, QuantizeScheme.INT8_QAT, QuantizeScheme.AUTO})


class Exclusion(Model):
    """The layers that stay float: by name, and by how much the answers suffer from them."""

    rules = (
        Rule(
            cel="self.layers.size() > 0 || has(self.maxError)",
            holds=lambda exclusion: bool(exclusion.layers) or exclusion.max_error is not None,
            message="must name layers or give maxError",
            field="layers",
        ),
    )

    layers: list[LayerName] = Field(
        default=[],
        max_length=256,
        description="Modules by their names in the model; a name stands for all within the module: its layers, and "
        "where they compute in int8 or float16 also what lies between them, such as sums, norms and pools.",
        json_schema_extra=list_of("set"),
    )
    max_error: Error | None = Field(
        default=None,
        description="The most error of the answers on data.calibration: their distance to the float model's, over how "
        "much those differ from sample to sample; above 0, at most 1. Layers stay float, first those that cost most "
        "when quantized alone, until the rest is within it.",
    )


class AutoChoice(Model):
    """What scheme Auto demands of a number format."""

    max_error: Error = Field(
        default=Fraction("10%"), description="The most error of the answers, as exclude.maxError has it."
    )
    max_changed: Fraction | None = Field(
        default=None, description="The largest share of samples whose largest output may be another; for classifiers."
    )
    max_latency_ratio: Annotated[Decimal, Within("above 0 and at most 100", above=0, at_most=100)] | None = Field(
        default=None,
        description="p50 latency over the float model's, at every batch size: the most that the upper end of its 95% "
        "interval may be. When unset, none that is slower is taken: the interval must reach 1 and end below 1.05.",
    )
    latency: LatencyMeasurement = Field(default=LatencyMeasurement(), description="How latency is measured.")


class QuantizeTraining(Schedule):
    """How scheme Int8QAT trains the model to answer in integers as it did in floats; no labels are needed."""

    epochs: int = Field(default=10, ge=1, le=10_000, description="Passes over the training data.")
    learning_rate: LearningRate = Field(
        default=Decimal("0.0001"),
        description="Peak learning rate of AdamW for the weights, with a cosine decay; the ranges of activations are "
        "learned by as many times it as they need. Above 0, at most 1.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="End before the last epoch when the model gets no better; never when unset."
    )


#: The schemes that round activations to ranges which calibration data shows.
RANGED = frozenset({QuantizeScheme.INT8_STATIC, QuantizeScheme.INT8_QAT, QuantizeScheme.AUTO})
#: The schemes that round weights of products to integers and do not train them.
ROUNDED = frozenset({
    QuantizeScheme.INT8_STATIC, QuantizeScheme.INT8_DYNAMIC, QuantizeScheme.INT4_WEIGHT_ONLY, QuantizeScheme.AUTO
})  # fmt: skip


def _only_with(field: str, *schemes: QuantizeScheme) -> Rule:
    listed, told = ", ".join(f"'{scheme}'" for scheme in schemes), " or ".join(schemes)
    return Rule(
        cel=f"self.scheme in [{listed}] || !has(self.{to_camel(field)})",
        holds=lambda quantize: quantize.scheme in schemes or getattr(quantize, field) is None,
        message=f"goes with scheme {told} only",
        field=to_camel(field),
        reason="FieldValueForbidden",
    )


class Quantize(Model):
    """Store weights in a smaller number format, and compute in it where the scheme says so."""

    rules = (
        _only_with("auto", QuantizeScheme.AUTO),
        _only_with("training", QuantizeScheme.INT8_QAT),
        _only_with("compute", QuantizeScheme.FLOAT16),
        _only_with("weight_bits", *sorted(INT8), QuantizeScheme.AUTO),
        _only_with("ranges", *sorted(RANGED)),
        _only_with("rounding", *sorted(ROUNDED)),
        _only_with("equalization", *sorted(ROUNDED)),
        _only_with("bias", *sorted(ROUNDED)),
    )

    scheme: QuantizeScheme = Field(
        description="Int8Static: weights and activations in int8, ranges from data.calibration; for convolutions and "
        "linear layers. Int8QAT: the same, after weights and ranges were trained for it on data.train, where that "
        "brings the answers nearer to float. Int8Dynamic: linear layers compute in int8, activations by their range in "
        "each run; embeddings are stored in int8, convolutions stay float. Int4WeightOnly: weights of linear layers in "
        "blocks of 32 by 4 bits. Float16 and BFloat16: all weights stored in half the bytes, computed in "
        "float32, or Float16 in float16 by compute. Float8: weights stored in 8-bit floats, computed in float16; needs "
        "a GPU. Auto: measures the schemes that can run on this machine beside the float model, and takes the smallest "
        "that is near enough to its answers and not slower."
    )
    compute: Compute | None = Field(
        default=None,
        description="What scheme Float16 computes in: Float32, the default, which restores the weights as they are "
        "loaded and is as fast as before; or Float16, which GPUs are fast at and x86 processors slow.",
    )
    weight_bits: Annotated[int, Field(ge=SAFE_WEIGHT_BITS, le=FULL_WEIGHT_BITS)] | None = Field(
        default=None,
        description="Of the Int8 schemes: how many bits the weights of convolutions and linear layers use. 7, the "
        "default, is exact on every processor. 8 rounds half as coarsely, and needs x86-64 with VNNI, or arm64: the "
        "artifact's manifest then says requires: [Vnni]; refused where the compress pod's processor lacks it. Auto "
        "measures 8 where 7 breaks a limit and the processor has VNNI; given, these only.",
    )
    ranges: RangeMethod | None = Field(
        default=None,
        description="Of Int8Static, Int8QAT and Auto: where an activation's range ends. MinMax, the default: at its "
        "least and largest value. Percentile: where 99.99% of its values lie within. Mse: where the mean squared error "
        "of rounding is least. Entropy: where the rounded distribution is nearest. Auto measures all.",
    )
    rounding: Rounding | None = Field(
        default=None,
        description="Of Int8Static, Int8Dynamic, Int4WeightOnly and Auto: Nearest, the default, or Gptq, which rounds "
        "weights so that what layers answer to data.calibration changes least. Auto measures both.",
    )
    equalization: Equalization | None = Field(
        default=None,
        description="Of the same: None, the default, or SmoothQuant, which moves the size of large channels from "
        "activations to weights where the layer before can take it, by data.calibration. Auto measures both.",
    )
    bias: BiasCorrection | None = Field(
        default=None,
        description="Of the same: Keep, the default, or Correct, which takes the mean error that rounded weights leave "
        "on data.calibration back in the biases. Auto measures both.",
    )
    exclude: Exclusion | None = Field(default=None, description="The layers that stay float.")
    auto: AutoChoice | None = Field(default=None, description="What scheme Auto demands; its defaults when unset.")

    training: QuantizeTraining | None = Field(
        default=None, description="How scheme Int8QAT trains; its defaults when unset."
    )

    @property
    def needs_calibration(self) -> bool:
        """Whether the step reads data.calibration."""
        return (
            self.scheme in NEED_CALIBRATION
            or (self.exclude is not None and self.exclude.max_error is not None)
            or self.rounding is Rounding.GPTQ
            or self.equalization is Equalization.SMOOTH_QUANT
            or self.bias is BiasCorrection.CORRECT
        )


_CEL_SCHEMES = ", ".join(f"'{scheme}'" for scheme in sorted(NEED_CALIBRATION))
#: CEL that is true for a step `s` that quantizes with calibration data.
CEL_NEEDS_CALIBRATION = (
    f"has(s.quantize) && (s.quantize.scheme in [{_CEL_SCHEMES}] || "
    "(has(s.quantize.exclude) && has(s.quantize.exclude.maxError)) || "
    f"(has(s.quantize.rounding) && s.quantize.rounding == '{Rounding.GPTQ}') || "
    f"(has(s.quantize.equalization) && s.quantize.equalization == '{Equalization.SMOOTH_QUANT}') || "
    f"(has(s.quantize.bias) && s.quantize.bias == '{BiasCorrection.CORRECT}'))"
)
