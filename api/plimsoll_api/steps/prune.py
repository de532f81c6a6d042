"""The prune step: what it takes away, by which measure, and how much."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Fraction, Model
from plimsoll_api.rules import Pattern, Rule, Within
from plimsoll_api.steps.batch_norm import DESCRIPTION, BatchNorm
from plimsoll_api.steps.training import MixedSchedule


class PruneCriterion(StrEnum):
    """What makes a weight or a channel unimportant."""

    MAGNITUDE = "Magnitude"
    ACTIVATION = "Activation"
    REDUNDANCY = "Redundancy"
    TAYLOR = "Taylor"


#: The criteria that rank by what calibration data makes the channels do.
CALIBRATED = frozenset(set(PruneCriterion) - {PruneCriterion.MAGNITUDE})


class ActivationStatistic(StrEnum):
    """What criterion Activation measures of the activations."""

    MEAN_ABSOLUTE = "MeanAbsolute"
    ZERO_SHARE = "ZeroShare"
    WANDA = "Wanda"


class Granularity(StrEnum):
    """What is taken away: whole channels and neurons, single weights, or some of each few neighbouring weights."""

    STRUCTURED = "Structured"
    UNSTRUCTURED = "Unstructured"
    N_OF_M = "NofM"


class Scope(StrEnum):
    """Among which weights the smallest are looked for."""

    GLOBAL = "Global"
    LAYER = "Layer"
    OUTPUT = "Output"


class Allocation(StrEnum):
    """What decides how much each layer gives."""

    SCORES = "Scores"
    SENSITIVITY = "Sensitivity"


class AmountOf(StrEnum):
    """What an amount is a share of."""

    PARAMETERS = "Parameters"
    MACS = "Macs"
    BYTES = "Bytes"


SparsityPattern = Annotated[
    str, Pattern(r"[1-9][0-9]?:[1-9][0-9]?", "N:M, such as 2:4: of each M neighbouring weights N may stay", 5)
]


def _keeps_fewer(prune: Prune) -> bool:
    # A pattern of the wrong grammar is left to the grammar's own rule.
    numbers = re.findall(r"[0-9]+", prune.pattern or "")
    return len(numbers) != 2 or int(numbers[0]) < int(numbers[1])


def _ranks_weights(prune: Prune) -> bool:
    """Tell whether the criterion says something of a single weight."""
    return prune.criterion == PruneCriterion.MAGNITUDE or prune.statistic == ActivationStatistic.WANDA


class Recovery(MixedSchedule):
    """Training between two iterations: the model learns to answer as the model given to the job does, by logits."""


class Prune(Model):
    """Take away the least important part of the model."""

    rules = (
        Rule(
            cel="self.granularity == 'Structured' || self.criterion == 'Magnitude' || "
            "(has(self.statistic) && self.statistic == 'Wanda')",
            holds=lambda prune: prune.granularity == Granularity.STRUCTURED or _ranks_weights(prune),
            message="must be Structured unless criterion is Magnitude or statistic is Wanda: other activations, "
            "redundancy and Taylor rank whole channels",
            field="granularity",
        ),
        Rule(
            cel="!has(self.statistic) || self.criterion == 'Activation'",
            holds=lambda prune: prune.statistic is None or prune.criterion == PruneCriterion.ACTIVATION,
            message="is for criterion Activation",
            field="statistic",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel="!has(self.scope) || self.granularity == 'Unstructured'",
            holds=lambda prune: prune.scope is None or prune.granularity == Granularity.UNSTRUCTURED,
            message="is for granularity Unstructured: channels are ranked over the whole model, and a pattern holds "
            "everywhere",
            field="scope",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel="has(self.pattern) == (self.granularity == 'NofM')",
            holds=lambda prune: (prune.pattern is not None) == (prune.granularity == Granularity.N_OF_M),
            message="is required by granularity NofM, and for nothing else",
            field="pattern",
        ),
        Rule(
            cel="!has(self.pattern) || !self.pattern.matches('^[0-9]+:[0-9]+$') || "
            "int(self.pattern.split(':')[0]) < int(self.pattern.split(':')[1])",
            holds=_keeps_fewer,
            message="must keep fewer weights than there are, such as 2:4",
            field="pattern",
        ),
        Rule(
            cel="has(self.amount) == (self.granularity != 'NofM')",
            holds=lambda prune: (prune.amount is not None) == (prune.granularity != Granularity.N_OF_M),
            message="is required, but with granularity NofM, whose pattern says how much goes",
            field="amount",
        ),
        Rule(
            cel="self.of == 'Parameters' || self.granularity == 'Structured'",
            holds=lambda prune: prune.of == AmountOf.PARAMETERS or prune.granularity == Granularity.STRUCTURED,
            message="must be Parameters unless granularity is Structured: zeros save neither operations nor bytes",
            field="of",
        ),
        Rule(
            cel="self.allocation == 'Scores' || self.criterion != 'Redundancy'",
            holds=lambda prune: prune.allocation == Allocation.SCORES or prune.criterion != PruneCriterion.REDUNDANCY,
            message="must be Scores with criterion Redundancy: its scores are what each layer costs already",
            field="allocation",
        ),
        Rule(
            cel="self.allocation == 'Scores' || self.granularity != 'NofM'",
            holds=lambda prune: prune.allocation == Allocation.SCORES or prune.granularity != Granularity.N_OF_M,
            message="must be Scores with granularity NofM: by a pattern all layers give the same share",
            field="allocation",
        ),
        Rule(
            cel="self.allocation == 'Scores' || !has(self.scope) || self.scope != 'Global'",
            holds=lambda prune: prune.allocation == Allocation.SCORES or prune.scope != Scope.GLOBAL,
            message="must be Layer or Output with allocation Sensitivity, which decides how much each layer gives",
            field="scope",
        ),
        Rule(
            cel="self.iterations == 1 || self.granularity != 'NofM'",
            holds=lambda prune: prune.iterations == 1 or prune.granularity != Granularity.N_OF_M,
            message="must be 1 with granularity NofM: a pattern holds at once or not at all",
            field="iterations",
        ),
        Rule(
            cel="!has(self.recovery) || self.iterations > 1",
            holds=lambda prune: prune.recovery is None or prune.iterations > 1,
            message="comes between iterations, so there must be 2 of them at least; after the last one let a distill "
            "step follow",
            field="recovery",
            reason="FieldValueForbidden",
        ),
    )

    criterion: PruneCriterion = Field(
        description="Magnitude: the norm of the weights. Activation: what the channels do over all calibration "
        "batches, by the statistic. Redundancy: what the other channels cannot reconstruct of it on the calibration "
        "batches; the layers that read the channels are refitted to those that are left. Taylor: how far the answers "
        "move without it, by their gradients on the calibration batches. All but Magnitude need data.calibration."
    )
    statistic: ActivationStatistic | None = Field(
        default=None,
        description="What criterion Activation ranks by. MeanAbsolute (when unset): the mean absolute activation. "
        "ZeroShare: how often the channel is zero. Wanda: the size of a weight times the norm of what it multiplies.",
    )
    granularity: Granularity = Field(
        default=Granularity.STRUCTURED,
        description="Structured deletes channels and neurons, so the model gets smaller and faster. Unstructured "
        "sets single weights to zero, NofM all but N of each M neighbouring ones: the file and the latency stay as "
        "they are. Both are for criterion Magnitude and for statistic Wanda.",
    )
    amount: Annotated[Fraction, Within("above 0 and below 1 (100%)", above=0, below=1)] | None = Field(
        default=None,
        description="The share of the model to take away, above 0 and below 1; required, but with granularity NofM.",
    )
    of: AmountOf = Field(
        default=AmountOf.PARAMETERS,
        description="What the amount is a share of: Parameters, Macs (multiply-accumulates of one sample) or Bytes (of "
        "the model exported in float). Macs and Bytes need granularity Structured.",
    )
    scope: Scope | None = Field(
        default=None,
        description="Among which weights the smallest are looked for with granularity Unstructured: Global, those of "
        "the whole model (when unset, with criterion Magnitude); Layer, those of each layer, which all give the same "
        "share; Output, those of each output of a layer (when unset, with statistic Wanda).",
    )
    pattern: SparsityPattern | None = Field(
        default=None,
        description="With granularity NofM: N:M, such as 2:4. Of each M weights that read neighbouring inputs, the N "
        "most important stay.",
    )
    allocation: Allocation = Field(
        default=Allocation.SCORES,
        description="What decides how much each layer gives. Scores: the criterion's, ranked as the scope says. "
        "Sensitivity: a scan, in which each layer alone lacks a few shares of its channels or weights; the error "
        "of the answers on data.calibration, which it needs, distributes the amount so that all layers cost the same "
        "for what they save. Not for criterion Redundancy.",
    )
    iterations: int = Field(
        default=1,
        ge=1,
        le=64,
        description="In how many turns the amount goes, each of which takes the same share of what is left and ranks "
        "anew; 1 is at once.",
    )
    batch_norm: BatchNorm | None = Field(
        default=None,
        description=f"{DESCRIPTION} When unset Reestimate, with criterion Redundancy Keep.",
    )
    recovery: Recovery | None = Field(
        default=None,
        description="Training after each iteration but the last, by the answers of the model as given to the job; none "
        "when unset. Needs data.train. What follows the last iteration is a distill step's.",
    )

    @property
    def needs_calibration(self) -> bool:
        """Whether data.calibration is needed."""
        return self.criterion in CALIBRATED or self.allocation == Allocation.SENSITIVITY

    @property
    def statistics(self) -> BatchNorm:
        """What becomes of batch norm's statistics."""
        refits = self.criterion == PruneCriterion.REDUNDANCY
        return self.batch_norm or (BatchNorm.KEEP if refits else BatchNorm.REESTIMATE)

    @property
    def kept_of(self) -> tuple[int, int]:
        """How many weights of how many neighbouring ones stay, by the pattern."""
        kept, _, of = (self.pattern or "").partition(":")
        return int(kept), int(of)
