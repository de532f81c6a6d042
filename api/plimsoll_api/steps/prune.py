"""The prune step: what it takes away, by which measure, and how much."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Fraction, Model
from plimsoll_api.rules import Rule, Within


class PruneCriterion(StrEnum):
    """What makes a weight or a channel unimportant."""

    MAGNITUDE = "Magnitude"
    ACTIVATION = "Activation"
    REDUNDANCY = "Redundancy"


#: The criteria that rank by what calibration data makes the channels do.
CALIBRATED = frozenset({PruneCriterion.ACTIVATION, PruneCriterion.REDUNDANCY})


class Granularity(StrEnum):
    """What is taken away: whole channels and neurons, or single weights."""

    STRUCTURED = "Structured"
    UNSTRUCTURED = "Unstructured"


class Prune(Model):
    """Take away the least important part of the model."""

    rules = (
        Rule(
            cel="self.criterion == 'Magnitude' || self.granularity == 'Structured'",
            holds=lambda prune: prune.criterion not in CALIBRATED or prune.granularity == Granularity.STRUCTURED,
            message="must be Structured with criterion Activation or Redundancy: activations rank whole channels",
            field="granularity",
        ),
    )

    criterion: PruneCriterion = Field(
        description="Magnitude: the norm of the weights. Activation: mean absolute activation over all calibration "
        "batches. Redundancy: what the other channels cannot reconstruct of it on the calibration batches; the layers "
        "that read the channels are refitted to those that are left. Activation and Redundancy need data.calibration "
        "and granularity Structured."
    )
    granularity: Granularity = Field(
        default=Granularity.STRUCTURED,
        description="Structured deletes channels and neurons, so the model gets smaller and faster. Unstructured "
        "sets weights to zero: the file and the latency stay as they are.",
    )
    amount: Annotated[Fraction, Within("above 0 and below 1 (100%)", above=0, below=1)] = Field(
        description="The share of the model's parameters to take away, above 0 and below 1."
    )
