"""The factorize step: layers become products of smaller ones."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Fraction, Model
from plimsoll_api.rules import Within, exactly_one_of
from plimsoll_api.steps.batch_norm import DESCRIPTION, BatchNorm


class FactorizeMethod(StrEnum):
    """What the factors of a layer come nearest to: its weights, or its answers on the calibration data."""

    SVD = "Svd"
    ACTIVATION_SVD = "ActivationSvd"


class Factorize(Model):
    """Replace layers by products of smaller ones, of lower rank."""

    rules = (exactly_one_of("keep", "amount", subject="factorize"),)

    method: FactorizeMethod = Field(
        description="Svd: the factors nearest to the weights. ActivationSvd: those nearest to the layer's answers, by "
        "the second moment of its inputs over all calibration batches; needs data.calibration. Linear layers and 1x1 "
        "convolutions become two layers, larger convolutions three (Tucker-2)."
    )
    keep: Annotated[Fraction, Within("above 0 and below 1 (100%)", above=0, below=1)] | None = Field(
        default=None,
        description="The least share of its energy that each layer keeps: of the squares of its weights, or with "
        "ActivationSvd of its answers; above 0 and below 1.",
    )
    amount: Annotated[Fraction, Within("above 0 and below 1 (100%)", above=0, below=1)] | None = Field(
        default=None,
        description="The share of the model's parameters to take away, above 0 and below 1; all layers then keep the "
        "same share of their energy, the largest at which so much goes.",
    )
    batch_norm: BatchNorm = Field(default=BatchNorm.REESTIMATE, description=DESCRIPTION)
