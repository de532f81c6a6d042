"""The steps of a compression: one model a technique, each in a module of its own."""

from __future__ import annotations

from pydantic import Field

from plimsoll_api.model import Model
from plimsoll_api.rules import exactly_one_of
from plimsoll_api.steps.batch_norm import BatchNorm
from plimsoll_api.steps.distill import Distill, DistillLoss, LabelsLoss, LayerPair, LogitsLoss
from plimsoll_api.steps.factorize import Factorize, FactorizeMethod
from plimsoll_api.steps.prune import (
    ActivationStatistic,
    Allocation,
    AmountOf,
    Granularity,
    Prune,
    PruneCriterion,
    Recovery,
    Scope,
)
from plimsoll_api.steps.quantize import (
    CEL_NEEDS_CALIBRATION,
    AutoChoice,
    BiasCorrection,
    Compute,
    Equalization,
    Exclusion,
    Quantize,
    QuantizeScheme,
    QuantizeTraining,
    RangeMethod,
    Rounding,
)
from plimsoll_api.steps.training import Precision

__all__ = [
    "CEL_NEEDS_CALIBRATION",
    "CEL_TRAINS",
    "ActivationStatistic",
    "Allocation",
    "AmountOf",
    "AutoChoice",
    "BatchNorm",
    "BiasCorrection",
    "Compute",
    "Distill",
    "DistillLoss",
    "Equalization",
    "Exclusion",
    "Factorize",
    "FactorizeMethod",
    "Granularity",
    "LabelsLoss",
    "LayerPair",
    "LogitsLoss",
    "Precision",
    "Prune",
    "PruneCriterion",
    "Quantize",
    "QuantizeScheme",
    "QuantizeTraining",
    "RangeMethod",
    "Recovery",
    "Rounding",
    "Scope",
    "Step",
]

#: CEL that is true for a step `s` that trains.
CEL_TRAINS = (
    "has(s.distill) || (has(s.prune) && has(s.prune.recovery)) || "
    f"(has(s.quantize) && s.quantize.scheme == '{QuantizeScheme.INT8_QAT}')"
)


class Step(Model):
    """One use of a technique; exactly one member."""

    rules = (exactly_one_of("prune", "factorize", "distill", "quantize", subject="a step"),)

    prune: Prune | None = Field(default=None, description="Take away the least important part.")
    factorize: Factorize | None = Field(default=None, description="Replace layers by products of smaller ones; once.")
    distill: Distill | None = Field(default=None, description="Train to answer as a teacher does.")
    quantize: Quantize | None = Field(default=None, description="Use a smaller number format; the last step.")

    @property
    def trains(self) -> bool:
        """Whether the step trains the model, for which it needs training data."""
        return (
            self.distill is not None
            or (self.prune is not None and self.prune.recovery is not None)
            or (self.quantize is not None and self.quantize.scheme == QuantizeScheme.INT8_QAT)
        )
