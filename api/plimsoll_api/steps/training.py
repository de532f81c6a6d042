"""What trainings have in common: how long they are, in which steps and arithmetic, and when they end early."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from plimsoll_api.model import Decimal, Fraction, Model
from plimsoll_api.rules import Rule, Within

LearningRate = Annotated[Decimal, Within("above 0 and at most 1", above=0, at_most=1)]


class EarlyStopping(Model):
    """End the training when a held-out share of the training data gets no better, and keep the best weights."""

    patience: int = Field(ge=1, le=10_000, description="Epochs without a smaller held-out loss before the end.")
    min_delta: Decimal = Field(
        default=Decimal("0"), description="By how much the held-out loss must fall to count as smaller."
    )
    held_out: Annotated[Fraction, Within("above 0 and at most 0.5 (50%)", above=0, at_most=0.5)] = Field(
        default=Fraction("10%"),
        description="The share of the training data that is not trained on, drawn by the seed; above 0, at most 0.5.",
    )


class Augmentation(Model):
    """Images that are trained on in more than one place or direction; each epoch draws anew."""

    shift: Annotated[Fraction, Within("at most 0.5 (50%)", at_most=0.5)] = Field(
        default=Fraction("10%"),
        description="How far an image is moved at most, as a share of its height and width, at most 0.5; zeros come "
        "in.",
    )
    horizontal_flip: bool = Field(
        default=False,
        description="Whether every other image is mirrored. Only where left and right mean nothing: not for digits.",
    )


class Precision(StrEnum):
    """The number format in which the model in training computes; its weights are always Float32."""

    FLOAT32 = "Float32"
    AUTO = "Auto"


class Schedule(Model):
    """How long a model is trained, and in which steps."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.microBatchSize) || self.microBatchSize <= self.batchSize",
            holds=lambda schedule: (
                schedule.micro_batch_size is None or schedule.micro_batch_size <= schedule.batch_size
            ),
            message="must be at most batchSize: it is the part of a batch that is in memory at once",
            field="microBatchSize",
        ),
    )

    epochs: int = Field(ge=1, le=10_000, description="Passes over the training data.")
    learning_rate: LearningRate | None = Field(
        default=None,
        description="Peak learning rate of AdamW, with a cosine decay; above 0, at most 1. When unset, by what the "
        "model computes: 0.0001 with attention (0.0005 of weights just drawn), else 0.001. The step's record "
        "tells which.",
    )
    warmup_ratio: Annotated[Fraction, Within("at most 0.5 (50%)", at_most=0.5)] | None = Field(
        default=None,
        description="The share of all steps in which the learning rate grows to its peak, at most 0.5. When unset 10% "
        "with attention, else none.",
    )
    max_grad_norm: Decimal | None = Field(
        default=None,
        description="Gradients of a larger norm, over all parameters, are scaled down to it; 0 leaves them as they "
        "are. When unset 1 with attention and recurrent layers, else 0.",
    )
    weight_decay: Annotated[Decimal, Within("at most 1", at_most=1)] | None = Field(
        default=None,
        description="AdamW's decay of weights, at most 1; norms, biases and embeddings have none. 0.01 when unset.",
    )
    batch_size: int = Field(default=64, ge=1, le=65_536, description="Samples of one optimizer step.")
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Samples that are in memory at once; the gradients of a batch are summed over its parts. The whole "
        "batch when unset. Batch normalisation and the relation loss see one part at a time.",
    )


class MixedSchedule(Schedule):
    """A schedule whose arithmetic may be smaller than its weights."""

    precision: Precision = Field(
        default=Precision.FLOAT32,
        description="Float32, or Auto: bfloat16 arithmetic on a GPU that has it, Float32 elsewhere; the step's record "
        "says which. Weights and losses are Float32 always.",
    )
