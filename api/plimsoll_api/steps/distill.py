"""The distill step: the losses by which the model learns, and how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Decimal, Fraction, Model
from plimsoll_api.rules import Rule, Within, cel_number, exactly_one_of
from plimsoll_api.values import list_of

LossWeight = Annotated[Fraction, Within("above 0 and at most 1 (100%)", above=0, at_most=1)]


class LogitsLoss(Model):
    """Match the baseline's softened class probabilities (Hinton et al. 2015, arXiv 1503.02531)."""

    temperature: Annotated[Decimal, Within("above 0 and at most 100", above=0, at_most=100)] = Field(
        default=Decimal("4"), description="Softens both distributions; above 0, at most 100."
    )
    weight: LossWeight | None = Field(
        default=None,
        description="Share of the total loss; when unset what the other loss leaves, and "
        "equal shares when no loss says its own.",
    )


class LabelsLoss(Model):
    """Cross-entropy with the training data's labels."""

    weight: LossWeight | None = Field(
        default=None,
        description="Share of the total loss; when unset what the other loss leaves, and "
        "equal shares when no loss says its own.",
    )


class DistillLoss(Model):
    """One term of the distillation loss; exactly one member."""

    rules = (exactly_one_of("logits", "labels", subject="a loss"),)

    logits: LogitsLoss | None = Field(default=None, description="Match the baseline's softened class probabilities.")
    labels: LabelsLoss | None = Field(default=None, description="Cross-entropy with the training data's labels.")

    @property
    def weight(self) -> Fraction | None:
        """The weight of the one member, as ordered."""
        term = self.logits or self.labels
        return term.weight if term else None


def _weights_sum_to_one(distill: Distill) -> bool:
    given = [loss.weight.value for loss in distill.losses if loss.weight is not None]
    if len(given) == len(distill.losses):
        return abs(sum(given) - 1) < 1e-9
    return sum(given) < 1


def _cel_weight(loss: str) -> str:
    terms = [
        f"has({loss}.{term}) && has({loss}.{term}.weight) ? ({cel_number(f'{loss}.{term}.weight')}) : "
        for term in ("logits", "labels")
    ]
    return "".join(terms) + "0.0"


_CEL_WEIGHTS = f"self.losses.map(l, {_cel_weight('l')})"


class Distill(Model):
    """Train the compressed model to answer as the baseline does; also the recovery after pruning."""

    rules = (
        Rule(
            cel="self.losses.filter(l, has(l.logits)).size() <= 1 && self.losses.filter(l, has(l.labels)).size() <= 1",
            holds=lambda distill: (
                sum(loss.logits is not None for loss in distill.losses) <= 1
                and sum(loss.labels is not None for loss in distill.losses) <= 1
            ),
            message="must name each kind of loss at most once",
            field="losses",
        ),
        Rule(
            cel=f"{_CEL_WEIGHTS}.all(w, w > 0.0) ? {_CEL_WEIGHTS}.sum() > 0.999999999 && {_CEL_WEIGHTS}.sum() < "
            f"1.000000001 : {_CEL_WEIGHTS}.sum() < 1.0",
            holds=_weights_sum_to_one,
            message="the weights must sum to 1 (100%), and leave something to a loss that says no weight",
            field="losses",
        ),
    )

    epochs: int = Field(ge=1, le=10_000, description="Passes over the training data.")
    losses: list[DistillLoss] = Field(
        default=[DistillLoss(logits=LogitsLoss())],
        min_length=1,
        max_length=2,
        description="The terms of the loss, each at most once; their weights sum to 1.",
        json_schema_extra=list_of("atomic"),
    )
    learning_rate: Annotated[Decimal, Within("above 0 and at most 1", above=0, at_most=1)] = Field(
        default=Decimal("0.001"),
        description="Peak learning rate of AdamW, with a cosine decay; above 0, at most 1.",
    )
    batch_size: int = Field(default=64, ge=1, le=65_536, description="Samples of one optimizer step.")

    @property
    def weights(self) -> tuple[float, ...]:
        """The share of each loss, in the order of `losses`, the unset ones filled in; they sum to 1."""
        given = [None if loss.weight is None else loss.weight.value for loss in self.losses]
        unset = given.count(None)
        rest = 1 - sum(weight for weight in given if weight is not None)
        return tuple(rest / unset if weight is None else weight for weight in given)
