"""What a module answers without channels, asked both ways: with them hidden and cut out; how far these are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from plimsoll_job.boundary import check_passing
from plimsoll_job.load.examples import Tensors
from plimsoll_job.techniques.prune.fitting import NotCutError, Watching, forget
from plimsoll_job.techniques.prune.following import plainly
from plimsoll_job.techniques.prune.groups import Coupling, Gone
from plimsoll_job.techniques.prune.masked import answer_without
from plimsoll_job.techniques.prune.reading import Reading

#: Largest difference of answers, as a share of the largest answer.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Told:
    """What a module answered, and what of the channels was read on the way."""

    answers: list[torch.Tensor]
    read: list[torch.Tensor]


def asked_without(
    module: nn.Module, example: Tensors, coupling: Coupling, gone: Gone, products: frozenset[int]
) -> Told:
    """Ask the module as if the channels were not there; NotCutError where it computes otherwise then."""
    reading = Reading(products)
    answers = _tensors(answer_without(module, example, coupling, gone, reading))
    return Told(answers, reading.left(coupling, gone))


def asked(pruned: nn.Module, example: Tensors, coupling: Coupling, products: frozenset[int]) -> Told:
    """Ask what is left; NotCutError where it computes otherwise, or stops."""
    reading = Reading(products)
    forget(pruned, coupling.flow.kept)
    watching = Watching(coupling.flow.calls, {}, reading)
    try:
        with plainly(), watching:
            answers = _tensors(pruned(*example))
    except Exception as error:
        check_passing(error)
        raise NotCutError(f"of other samples: {error}") from error
    return Told(answers, [value for _, value in sorted(reading.values.items())])


@dataclass(frozen=True)
class Off:
    """What is off, in words, and by how much over the largest of it; 0 where it is of another shape."""

    reason: str
    share: float = 0.0


def off_by(given: Told, wanted: Told) -> Off | None:
    """Return by how much what is left is off, None where it is not."""
    if [one.shape for one in given.answers] != [one.shape for one in wanted.answers]:
        return Off(f"the answers change from {_shapes(wanted.answers)} to {_shapes(given.answers)}")
    for what, ours, theirs in (
        ("the answers differ", given.answers, wanted.answers),
        ("what layers read of them differs", given.read, wanted.read),
    ):
        for one, other in zip(ours, theirs, strict=True):
            difference = float((one - other).abs().max()) if one.numel() else 0.0
            largest = max(float(other.abs().max()) if one.numel() else 0.0, 1e-6)
            if not difference <= TOLERANCE * largest:
                reason = f"{what} by {difference:.3g} from those that the channels should leave"
                return Off(reason, difference / largest)
    return None


def has_spread(answers: torch.Tensor) -> bool:
    """Tell whether the answers are not all the same number, which would tell nothing."""
    return answers.numel() > 0 and bool((answers != answers.reshape(-1)[0]).any())


def each(example: Tensors, change: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
    """Return the example with what is no whole numbers changed."""
    return tuple(change(one) if one.is_floating_point() else one for one in example)


def _tensors(answers: Any) -> list[torch.Tensor]:
    return [one for one in tree_leaves(answers) if isinstance(one, torch.Tensor)]


def _shapes(answers: Sequence[torch.Tensor]) -> str:
    return " and ".join(str(list(one.shape)) for one in answers)
