"""Which layer of the student is to answer as which layer of the teacher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from plimsoll_api.spec import LayerPair
from plimsoll_job.errors import UserError
from plimsoll_job.load.inputs import Signature
from plimsoll_job.techniques.distill.answers import Hidden, hidden_layer, hidden_layers


@dataclass(frozen=True)
class Pair:
    """Two layers that are compared."""

    teacher: Hidden
    student: Hidden

    def to_wire(self) -> dict[str, str]:
        """Return the names."""
        return {"teacher": self.teacher.name, "student": self.student.name}


@dataclass(frozen=True)
class Couple:
    """The two models of a distillation, with the inputs of both."""

    teacher: nn.Module
    student: nn.Module
    signature: Signature


def pairs_of(ordered: Sequence[LayerPair], couple: Couple, spec_field: str, *, spatial: bool = False) -> list[Pair]:
    """Return the pairs as ordered, or chosen by order and size; UserError when two cannot be compared.

    `spatial` pairs are of layers whose answers have several positions.
    """
    if not ordered:
        pairs = [pair for pair in matching_pairs(couple) if _has_positions(pair.teacher) or not spatial]
        if not pairs:
            raise UserError(
                f"{spec_field}: no two layers before the outputs have the same spatial size; name them in layers"
            )
        return pairs
    return [_pair(one, couple, f"{spec_field}.layers[{index}]", spatial=spatial) for index, one in enumerate(ordered)]


def matching_pairs(couple: Couple) -> list[Pair]:
    """Return the last layer of each spatial size that both models have, in the teacher's order of execution."""
    teacher, student = (
        {layer.grid: layer for layer in hidden_layers(module, couple.signature)}
        for module in (couple.teacher, couple.student)
    )
    return [Pair(layer, student[grid]) for grid, layer in teacher.items() if grid in student]


def _pair(ordered: LayerPair, couple: Couple, spec_field: str, *, spatial: bool) -> Pair:
    teacher = hidden_layer(couple.teacher, couple.signature, ordered.teacher)
    if teacher is None:
        raise UserError(
            f"{spec_field}.teacher: the teacher has no layer {ordered.teacher!r} that answers with a tensor"
        )
    name = ordered.student or ordered.teacher
    student = hidden_layer(couple.student, couple.signature, name)
    if student is None:
        raise UserError(f"{spec_field}.student: the model has no layer {name!r} that answers with a tensor")
    if teacher.grid != student.grid:
        raise UserError(
            f"{spec_field}: {teacher.name} answers {list(teacher.shape)} and {name} {list(student.shape)} for a "
            "sample; they must be of one spatial size"
        )
    if spatial and not _has_positions(teacher):
        raise UserError(
            f"{spec_field}.teacher: {teacher.name} answers {list(teacher.shape)} for a sample, which has no positions "
            "to attend to; name a layer that answers for each place of an image or each token of a text"
        )
    return Pair(teacher, student)


def _has_positions(layer: Hidden) -> bool:
    """Tell whether there are several: a map of one is the same whatever the layer answers."""
    return math.prod(layer.grid) > 1
