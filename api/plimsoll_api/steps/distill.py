"""The distill step: the losses by which the model learns, from whom, and how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Decimal, Fraction, Model
from plimsoll_api.rules import Pattern, Rule, Within, cel_number, exactly_one_of
from plimsoll_api.sources import Architecture, ModelSource
from plimsoll_api.steps.training import Augmentation, EarlyStopping, MixedSchedule
from plimsoll_api.values import list_of

LOSSES = ("logits", "labels", "features", "attention", "relation")

LossWeight = Annotated[Fraction, Within("above 0 and at most 1 (100%)", above=0, at_most=1)]
LayerName = Annotated[
    str, Pattern(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", "a module's name, such as features.5 or encoder.layer.0", 256)
]


class Loss(Model):
    """What every kind of loss has."""

    weight: LossWeight | None = Field(
        default=None,
        description="Share of the total loss; when unset what the other losses leave, and "
        "equal shares when no loss says its own.",
    )


class LogitsLoss(Loss):
    """Match the teacher's output; softened class probabilities as in Hinton et al. 2015, arXiv 1503.02531."""

    temperature: Annotated[Decimal, Within("above 0 and at most 100", above=0, at_most=100)] = Field(
        default=Decimal("4"), description="Softens both distributions of classes; above 0, at most 100."
    )


class LabelsLoss(Loss):
    """Match the training data's labels."""


class LayerPair(Model):
    """A layer of the teacher, and the layer of the model in training that is to answer as it does."""

    teacher: LayerName = Field(description="The module's name in the teacher.")
    student: LayerName | None = Field(
        default=None, description="The module's name in the model in training; the same name when unset."
    )


class HiddenLoss(Loss):
    """A loss on what layers inside the two models answer."""

    layers: list[LayerPair] = Field(
        default=[],
        max_length=64,
        description="The layers that are compared. When empty, the last layer of each spatial size that both models "
        "have, in the order of execution, before the output.",
        json_schema_extra=list_of("atomic"),
    )


class FeaturesLoss(HiddenLoss):
    """Match what layers answer (FitNets, Romero et al. 2015, arXiv 1412.6550)."""


class AttentionLoss(HiddenLoss):
    """Match where layers look: the normalised sum of squares over channels or width (arXiv 1612.03928)."""


class RelationLoss(HiddenLoss):
    """Match distances and angles between the samples of a batch (Park et al. 2019, arXiv 1904.05068)."""


class DistillLoss(Model):
    """One term of the distillation loss; exactly one member."""

    rules = (exactly_one_of(*LOSSES, subject="a loss"),)

    logits: LogitsLoss | None = Field(
        default=None,
        description="Match the teacher's output: softened class probabilities; of task Regression the numbers, by "
        "squared error; of task Embedding the direction, by cosine.",
    )
    labels: LabelsLoss | None = Field(
        default=None,
        description="Match the training data's labels: cross-entropy; of task Regression squared error.",
    )
    features: FeaturesLoss | None = Field(
        default=None,
        description="Mean squared error between what layers answer; where widths differ, through a linear map that is "
        "learned with the model and thrown away after (FitNets).",
    )
    attention: AttentionLoss | None = Field(
        default=None,
        description="Squared distance between the attention maps of layers: the normalised sum of squares over the "
        "channels at each place of an image, or over the width of each token that the attention mask leaves (attention "
        "transfer).",
    )
    relation: RelationLoss | None = Field(
        default=None,
        description="Huber loss between the distances, and twice that between the angles, of the samples of a batch as "
        "layers answer them (relational distillation). Without layers, the last of the layers chosen by themselves.",
    )

    @property
    def kind(self) -> str:
        """The name of the one member; empty where none is set, which a rule refuses."""
        return next((kind for kind in LOSSES if getattr(self, kind) is not None), "")

    @property
    def weight(self) -> Fraction | None:
        """The weight of the one member, as ordered."""
        loss: Loss | None = getattr(self, self.kind, None)
        return loss.weight if loss else None


def _weights_sum_to_one(distill: Distill) -> bool:
    given = [loss.weight.value for loss in distill.losses if loss.weight is not None]
    if len(given) == len(distill.losses):
        return abs(sum(given) - 1) < 1e-9
    return sum(given) < 1


def _cel_weight(loss: str) -> str:
    terms = [
        f"has({loss}.{term}) && has({loss}.{term}.weight) ? ({cel_number(f'{loss}.{term}.weight')}) : "
        for term in LOSSES
    ]
    return "".join(terms) + "0.0"


_CEL_WEIGHTS = f"self.losses.map(l, {_cel_weight('l')})"


class Distill(MixedSchedule):
    """Train the compressed model to answer as a teacher does; also the recovery after pruning."""

    rules = (
        Rule(
            cel="!has(self.student) || !(has(self.student.huggingface) || has(self.student.onnx))",
            holds=lambda distill: (
                distill.student is None or (distill.student.huggingface is None and distill.student.onnx is None)
            ),
            message="must not be huggingface or onnx: they bring weights, and a student's are drawn",
            field="student",
        ),
        Rule(
            cel="!has(self.teacher) || !has(self.teacher.architecture.onnx)",
            holds=lambda distill: distill.teacher is None or distill.teacher.architecture.onnx is None,
            message="must not be onnx: what its layers answer inside, and a GPU, are for modules of torch",
            field="teacher.architecture",
        ),
        Rule(
            cel=" && ".join(f"self.losses.filter(l, has(l.{kind})).size() <= 1" for kind in LOSSES),
            holds=lambda distill: len({loss.kind for loss in distill.losses}) == len(distill.losses),
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
        *MixedSchedule.rules,
    )

    teacher: ModelSource | None = Field(
        default=None,
        description="Whom the model learns from: another model of the same inputs and outputs, such as a larger one. "
        "The model as given when unset.",
    )
    student: Architecture | None = Field(
        default=None,
        description="A smaller architecture that takes the place of the model, with weights drawn by the seed, of the "
        "same inputs and outputs. In the first step only. The model as the steps before left it when unset.",
    )
    losses: list[DistillLoss] = Field(
        default=[DistillLoss(logits=LogitsLoss())],
        min_length=1,
        max_length=len(LOSSES),
        description="The terms of the loss, each at most once; their weights sum to 1.",
        json_schema_extra=list_of("atomic"),
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="End before the last epoch when the model gets no better; never when unset."
    )

    augmentation: Augmentation | None = Field(
        default=None,
        description="Move and mirror the images that are trained on; the teacher sees the same ones. As they are when "
        "unset.",
    )

    @property
    def weights(self) -> tuple[float, ...]:
        """The share of each loss, in the order of `losses`, the unset ones filled in; they sum to 1."""
        given = [None if loss.weight is None else loss.weight.value for loss in self.losses]
        unset = given.count(None)
        rest = 1 - sum(weight for weight in given if weight is not None)
        return tuple(rest / unset if weight is None else weight for weight in given)
