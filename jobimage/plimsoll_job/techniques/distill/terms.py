"""The terms of the distillation loss: what each takes from the teacher, and how it compares the student with it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from plimsoll_api.spec import Distill, DistillLoss, Task
from plimsoll_job.techniques.distill.answers import Answers
from plimsoll_job.techniques.distill.losses import (
    attention_distance,
    attention_map,
    cross_entropy_of_tokens,
    feature_distance,
    relation_distance,
    softened_divergence,
    softened_divergence_of_tokens,
)
from plimsoll_job.techniques.distill.pairs import Couple, Pair, pairs_of
from plimsoll_job.techniques.padding import Padding

#: What of the teacher's answers to a batch a term compares with; one entry a sample each.
Knowledge = tuple[torch.Tensor, ...]


class OutputKind(Enum):
    """What the outputs of a model are, which decides how two of them are compared."""

    CLASSES = "classes"
    TOKENS = "classes of tokens"
    NUMBERS = "numbers"
    EMBEDDING = "embedding"

    @classmethod
    def of_task(cls, task: Task) -> OutputKind:
        """Return what the outputs of a model of this task are."""
        kinds = {
            Task.REGRESSION: cls.NUMBERS,
            Task.EMBEDDING: cls.EMBEDDING,
            Task.TOKEN_CLASSIFICATION: cls.TOKENS,
        }
        return kinds.get(task, cls.CLASSES)


class Term(nn.Module):
    """One term of the loss; its parameters, where it has any, are learned with the student and thrown away after."""

    def __init__(self, pairs: Sequence[Pair] = ()) -> None:
        super().__init__()
        self.pairs = tuple(pairs)
        #: Where padding is in what layers of the teacher answer, by their names: there nothing is compared.
        self.padding = Padding()

    def knowledge(self, teacher: Answers) -> Knowledge:
        """Return what the term compares with."""
        return tuple(teacher.hidden[pair.teacher.name] for pair in self.pairs)

    def forward(self, student: Answers, knowledge: Knowledge, labels: torch.Tensor | None) -> torch.Tensor:
        """Return the value for a batch, the mean over its samples and over the pairs of layers."""
        given = [student.hidden[pair.student.name].float() for pair in self.pairs]
        pairs = enumerate(zip(given, knowledge, strict=True))
        return torch.stack(
            [self.compare(number, *two, self._counted(self.pairs[number], student.mask)) for number, two in pairs]
        ).mean()

    def compare(
        self, number: int, given: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return how the answers of a pair of layers differ; the mask [batch, …] says which positions count."""
        raise NotImplementedError

    def _counted(self, pair: Pair, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Return which positions of the pair count, [batch, …] without the width."""
        layout = self.padding.layouts.get(pair.teacher.name)
        if layout is None or mask is None:
            return None
        counted = torch.from_numpy(layout.counted(mask.bool().cpu().numpy())).to(mask.device)
        return counted.squeeze(pair.teacher.width_axis)

    def to_wire(self) -> dict[str, Any]:
        """Return what the term tells of itself."""
        return {"layers": [pair.to_wire() for pair in self.pairs]} if self.pairs else {}


class LogitsTerm(Term):
    """The output as the teacher's: softened probabilities of classes, the numbers themselves, or their direction."""

    def __init__(self, kind: OutputKind, temperature: float) -> None:
        super().__init__()
        self.kind, self.temperature = kind, temperature

    def knowledge(self, teacher: Answers) -> Knowledge:
        """Return the teacher's output."""
        return (teacher.output,)

    def forward(self, student: Answers, knowledge: Knowledge, labels: torch.Tensor | None) -> torch.Tensor:
        """Return the difference of the outputs."""
        given, (wanted,) = student.output.float(), knowledge
        if self.kind is OutputKind.NUMBERS:
            return functional.mse_loss(given, wanted)
        if self.kind is OutputKind.EMBEDDING:
            return 1 - functional.cosine_similarity(given, wanted, dim=1).mean()
        if self.kind is OutputKind.TOKENS:
            which = torch.ones(given.shape[:2], device=given.device) if student.mask is None else student.mask
            return softened_divergence_of_tokens(given, wanted, which, self.temperature)
        return softened_divergence(given, wanted, self.temperature)


class LabelsTerm(Term):
    """The output as the labels: cross-entropy with classes, squared error with numbers."""

    def __init__(self, kind: OutputKind) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, student: Answers, knowledge: Knowledge, labels: torch.Tensor | None) -> torch.Tensor:
        """Return the difference from the labels."""
        if labels is None:
            raise ValueError("a labels term needs labels")
        given = student.output.float()
        if self.kind is OutputKind.CLASSES:
            return functional.cross_entropy(given, labels)
        if self.kind is OutputKind.TOKENS:
            return cross_entropy_of_tokens(given, labels)
        return functional.mse_loss(given, labels.to(given.dtype).reshape(given.shape))


class FeaturesTerm(Term):
    """Mean squared error of what layers answer, through a linear map where widths differ (arXiv 1412.6550)."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__(pairs)
        self.projections = nn.ModuleList(
            nn.Identity()
            if pair.student.width == pair.teacher.width
            else nn.Linear(pair.student.width, pair.teacher.width)
            for pair in pairs
        )

    def compare(
        self, number: int, given: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the mean squared error."""
        pair = self.pairs[number]
        projected = self.projections[number](given.movedim(pair.student.width_axis, -1))
        return feature_distance(projected, wanted.movedim(pair.teacher.width_axis, -1), mask)

    def to_wire(self) -> dict[str, Any]:
        """Return the layers, with the widths between which a map was learned."""
        return {
            "layers": [
                pair.to_wire() | ({"projection": [pair.student.width, pair.teacher.width]} if projected else {})
                for pair, projected in zip(
                    self.pairs, (isinstance(one, nn.Linear) for one in self.projections), strict=True
                )
            ]
        }


class AttentionTerm(Term):
    """Where layers look: their attention maps (arXiv 1612.03928)."""

    def knowledge(self, teacher: Answers) -> Knowledge:
        """Return the teacher's maps: they are smaller than the answers, by the width."""
        answers = zip(self.pairs, super().knowledge(teacher), strict=True)
        return tuple(attention_map(hidden, pair.teacher.width_axis) for pair, hidden in answers)

    def compare(
        self, number: int, given: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the squared distance of the maps."""
        return attention_distance(attention_map(given, self.pairs[number].student.width_axis), wanted, mask)


class RelationTerm(Term):
    """How the samples of a batch lie to each other (arXiv 1904.05068)."""

    def compare(
        self, number: int, given: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the difference of distances and angles."""
        if mask is not None:
            pair = self.pairs[number]
            given, wanted = (
                given * mask.unsqueeze(pair.student.width_axis),
                wanted * mask.unsqueeze(pair.teacher.width_axis),
            )
        return relation_distance(given, wanted)


def terms_of(settings: Distill, couple: Couple, kind: OutputKind, spec_field: str) -> dict[str, Term]:
    """Return the terms by the kind of loss; projections are drawn from torch's generator."""
    return {
        loss.kind: _term(loss, couple, kind, f"{spec_field}.losses[{index}].{loss.kind}")
        for index, loss in enumerate(settings.losses)
    }


def _term(loss: DistillLoss, couple: Couple, kind: OutputKind, spec_field: str) -> Term:
    if loss.features is not None:
        return FeaturesTerm(pairs_of(loss.features.layers, couple, spec_field))
    if loss.attention is not None:
        return AttentionTerm(pairs_of(loss.attention.layers, couple, spec_field, spatial=True))
    if loss.relation is not None:
        pairs = pairs_of(loss.relation.layers, couple, spec_field)
        return RelationTerm(pairs if loss.relation.layers else pairs[-1:])
    if loss.logits is not None:
        return LogitsTerm(kind, loss.logits.temperature.value)
    return LabelsTerm(kind)
