"""Whether a model answers each sample by itself, and alike each time: else what is measured holds for one draw only."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from plimsoll_job.boundary import boundary
from plimsoll_job.errors import UserError
from plimsoll_job.load.architectures.graph import GraphModule, differ
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature

#: Samples that are answered together, and each alone.
TOGETHER = 4
#: Largest difference of the answers to one sample, as a share of the largest answer: kernels differ with the batch.
TOLERANCE = 1e-3

#: What a difference is to come to beside a constant, as a share of the largest answer.
ROUNDING = 1e-6

Tensors = tuple[torch.Tensor, ...]


def check_alone(module: nn.Module, signature: Signature, spec_field: str, decided: str = "") -> None:
    """UserError that names the layer where a sample is answered otherwise again, or beside others than alone.

    `decided` tells where the model decides by values, if it does.
    """
    if isinstance(module, GraphModule):
        return
    example = example_of(signature, TOGETHER)
    with torch.no_grad():
        with boundary(spec_field, "the model refuses several samples at once"):
            together, again = module(*example), module(*example)
        at_random = differ(together, again, TOLERANCE)
        if not at_random:
            with boundary(spec_field, "the model answers several samples, and refuses one alone"):
                alone = _each_alone(module, example)
        if at_random or (_differ_from_mean(together, again) and _differs_exactly(module, example, _again)):
            layer = _first_to_differ(module, example, example)
            raise UserError(
                f"{spec_field}: its answers are drawn at random{layer.by}; a model that is measured answers alike each "
                "time: functional.dropout, for one, draws unless it is told training=self.training",
                reason="AnswersAtRandom",
            )
        if differ(together, alone, TOLERANCE) or (
            _differ_from_mean(together, alone) and _differs_exactly(module, example, _each_alone)
        ):
            layer = _first_to_differ(module, example, tuple(one[:1] for one in example))
            raise UserError(
                f"{spec_field}: its answers depend on the batch: a sample is answered otherwise beside others than "
                f"alone{layer.by}{_remedy(layer.layer)}{decided}",
                reason="AnswersDependOnBatch",
            )


def _again(module: nn.Module, example: Tensors) -> torch.Tensor:
    answers: torch.Tensor = module(*example)
    return answers


def _each_alone(module: nn.Module, example: Tensors) -> torch.Tensor:
    return torch.cat([module(*(one[at : at + 1] for one in example)) for at in range(len(example[0]))])


def _differ_from_mean(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether answers differ as measured from the mean of each output: a constant of all hides no difference.

    What comes to less beside the constant may be its own rounding.
    """
    if not one.is_floating_point() or not one.isfinite().all() or one.shape != other.shape:
        return False
    allowed = max(TOLERANCE * float((one - one.mean(0, keepdim=True)).abs().max()), ROUNDING * float(one.abs().max()))
    return float((one - other).abs().max()) > allowed


def _differs_exactly(module: nn.Module, example: Tensors, ask: Callable[[nn.Module, Tensors], torch.Tensor]) -> bool:
    """Tell whether the answers differ in double precision too: in single precision kernels of other batches round.

    Code that has numbers of single precision of its own stops there, and nothing is held against it.
    """
    with contextlib.suppress(Exception):
        exact = copy.deepcopy(module).double()
        given = tuple(one.double() if one.is_floating_point() else one for one in example)
        return _differ_from_mean(exact(*given), ask(exact, given))
    return False


def _remedy(layer: nn.Module | None) -> str:
    # torch's own base class, of which those that keep no statistics are too.
    if isinstance(layer, nn.modules.batchnorm._NormBase):
        keeps = layer.running_mean is not None
        how = "it is left in training mode" if keeps else "it keeps no running statistics"
        return (
            f"; {how}, so it normalises by those of the batch: train it with track_running_stats=True, in eval() here"
        )
    return ""


@dataclass(frozen=True)
class _Layer:
    """The layer that is to blame, none where it cannot be told."""

    name: str = ""
    layer: nn.Module | None = None

    @property
    def by(self) -> str:
        """The layer in a sentence."""
        return "" if self.layer is None else f", by {self.name or 'the model itself'} ({type(self.layer).__name__})"


def _first_to_differ(module: nn.Module, example: Tensors, other: Tensors) -> _Layer:
    """Return the innermost module that answers otherwise what it was asked alike, the first to end of those."""
    before: list[tuple[str, list[torch.Tensor], list[torch.Tensor]]] = []
    with _heard(module, lambda name, given, answer: before.append((name, given, answer))):
        module(*example)
    calls = iter(before)
    found: list[str] = []

    def compare(name: str, given: list[torch.Tensor], answer: list[torch.Tensor]) -> None:
        called, given_before, answer_before = next(calls, ("", [], []))
        if found or called != name:
            return
        if not _any_differ(given_before, given) and _any_differ(answer_before, answer):
            found.append(name)

    with _heard(module, compare):
        module(*other)
    return _Layer(found[0], module.get_submodule(found[0])) if found else _Layer()


def _any_differ(before: list[torch.Tensor], now: list[torch.Tensor]) -> bool:
    pairs = [(_narrowed(one, other), other) for one, other in zip(before, now, strict=False)]
    return any(differ(one, other, TOLERANCE) for one, other in pairs if one.shape == other.shape)


def _narrowed(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the part of what was made of a batch that the first sample has, wherever its axis is."""
    if tensor.ndim == like.ndim:
        for axis, (size, wanted) in enumerate(zip(tensor.shape, like.shape, strict=True)):
            if wanted < size:
                tensor = tensor.narrow(axis, 0, wanted)
    return tensor


@contextmanager
def _heard(module: nn.Module, hear: Any) -> Iterator[None]:
    """Hand each call of each module to `hear` as it ends: name, tensors given, tensors answered."""

    def told(name: str) -> Any:
        return lambda _, given, named, answer: hear(name, [*_tensors(given), *_tensors(named)], list(_tensors(answer)))

    hooks = [layer.register_forward_hook(told(name), with_kwargs=True) for name, layer in module.named_modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        # What layers change in place is to be compared as it was.
        yield values.detach().clone()
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
