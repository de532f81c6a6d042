"""Correcting the sizes that layers remember, after positions were cut out of their tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from plimsoll_job.techniques.prune.flow import Call
from plimsoll_job.techniques.prune.following import LAYS_OUT, Mode, plainly, telling_layers
from plimsoll_job.techniques.prune.groups import Coupling, Gone
from plimsoll_job.techniques.prune.left import left_shape
from plimsoll_job.techniques.prune.reading import Hear
from plimsoll_job.techniques.prune.run import name_of

#: What attention calls the number of its heads, and their widths together.
NAMED = frozenset({
    "num_attention_heads", "num_heads", "n_heads", "n_head", "num_key_value_heads", "heads", "all_head_size",
    "attn_dim", "split_size",
})  # fmt: skip
#: How many ways of correcting the sizes that a layer remembers are tried.
MOST_TRIES = 60


class NotCutError(Exception):
    """The module does not follow what was cut out of it: its code has sizes of its own.

    `layer` is the one in which it fails, `number` that of the first operation that is still to come.
    """

    def __init__(self, message: str, layer: str = "", number: int = -1) -> None:
        super().__init__(message)
        self.layer, self.number = layer, number


class Watching(Mode):  # type: ignore[no-untyped-call]
    """Sees that a module runs the operations of a run before it, on tensors of the shapes that are left.

    Those that lay out tensors in memory it passes over. `reached` is the number of the first that is still to come,
    `hear` takes in what each answers.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        sizes: Mapping[int, tuple[tuple[int, ...], ...]],
        hear: Hear = lambda *_: None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layer = ""
        self.reached = 0
        self._calls, self._sizes, self._hear = calls, sizes, hear
        self._to_come = iter([number for number, call in enumerate(calls) if call.name not in LAYS_OUT])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation; NotCutError when it is another one, or its outputs are of other shapes."""
        output = func(*args, **(kwargs or {}))
        if name_of(func) in LAYS_OUT:
            return output
        number = next(self._to_come, len(self._calls))
        if number == len(self._calls) or name_of(func) != self._calls[number].name:
            raise NotCutError(f"{self.layer or 'it'} computes otherwise where sizes change")
        outputs = [one for one in tree_leaves(output) if isinstance(one, torch.Tensor)]
        shapes = tuple(tuple(one.shape) for one in outputs)
        expected = self._sizes.get(number)
        if expected is not None and shapes[: len(expected)] != expected:
            made, wanted = list(shapes[0]), list(expected[0])
            raise NotCutError(f"{name_of(func)} in {self.layer} makes {made} of what should be {wanted}")
        self.reached = number + 1
        self._hear(number, outputs)
        return output


@dataclass(frozen=True)
class _Run:
    """How far a run came, in operations; the layer in which it failed, and why."""

    reached: int
    layer: str = ""
    error: Exception | None = None
    answers: Any = None


class Fitting:
    """The search for sizes, held by layers, that are others now: attributes of the number that a size was."""

    def __init__(self, module: nn.Module, example: Sequence[torch.Tensor], coupling: Coupling, gone: Gone) -> None:
        self._module, self._example, self._coupling, self._gone = module, example, coupling, gone
        self._calls = coupling.flow.calls
        self._left = {
            number: tuple(left_shape(shape, held, gone) for shape, held in call.outputs)
            for number, call in enumerate(self._calls)
            if any(held.labels for _, held in call.outputs)
        }
        #: Which attributes were others in layers of a kind: the next one of it is tried with them first.
        self._learned: dict[type, tuple[str, ...]] = {}
        self._tries = 0
        #: What attributes that are sizes by their names were before.
        self._named: dict[str, dict[str, Any]] = {}

    def run(self) -> Any:
        """Return the answers of the module, its sizes corrected; NotCutError where none fit."""
        for name in {call.layer for call in self._calls}:
            self._correct_named(name)
        done = self._attempt()
        while done.error is not None:
            further = next((one for name in _around(done.layer) if (one := self._correct(name, done))), None)
            if further is None:
                message = f"{done.layer or 'the model'}: {done.error}"
                raise NotCutError(message, done.layer, done.reached) from done.error
            done = further
        return done.answers

    def _attempt(self) -> _Run:
        self._tries += 1
        forget(self._module, self._coupling.flow.kept)
        mode = Watching(self._calls, self._left)
        # Sizes that do not fit stop a module in any way: torch's checks, its own, Python's.
        try:
            with plainly(), telling_layers(self._module, mode), mode:
                answers = self._module(*self._example)
        except Exception as error:
            return _Run(mode.reached, mode.layer, error)
        return _Run(mode.reached, answers=answers)

    def _correct(self, name: str, failed: _Run) -> _Run | None:
        """Correct what the layer holds so that the run comes further, if it can be."""
        layer = self._module.get_submodule(name)
        last = max((number for number, call in enumerate(self._calls) if call.layer == name), default=-1)
        best: tuple[_Run, dict[str, Any]] | None = None
        for change in self._changes(name, layer):
            if self._tries >= MOST_TRIES:
                message = f"{name or 'the model'}: no sizes fit that its layers could hold: {failed.error}"
                raise NotCutError(message, failed.layer, failed.reached)
            before = {attribute: getattr(layer, attribute) for attribute in change}
            _set(layer, change)
            run = self._attempt()
            if run.error is None or run.reached > max(last, failed.reached):
                self._learned[type(layer)] = tuple(change)
                return run
            _set(layer, before)
            if run.reached > failed.reached and (best is None or run.reached > best[0].reached):
                best = run, change
        if best is not None:
            _set(layer, best[1])
            return best[0]
        return None

    def _correct_named(self, name: str) -> None:
        """Correct what a layer's attributes of well-known names say, whether its code reads them or not."""
        layer = self._module.get_submodule(name)
        held = {one: value for one, value in vars(layer).items() if one in NAMED and type(value) is int}
        if held:
            sizes = self._sizes(name)
            changed = {one: sizes[value][0] for one, value in held.items() if value in sizes}
            self._named[name] = {one: held[one] for one in changed}
            _set(layer, changed)

    def _changes(self, name: str, layer: nn.Module) -> Iterator[dict[str, Any]]:
        """Yield what may be others of the layer's attributes, the likeliest first."""
        if named := self._named.pop(name, {}):
            yield named
        sizes = self._sizes(name)
        options: dict[str, list[Any]] = {}
        for attribute, value in vars(layer).items():
            if found := _other_sizes(value, sizes):
                options[attribute] = found
        learned = self._learned.get(type(layer), ())
        if learned and all(attribute in options for attribute in learned):
            yield {attribute: options[attribute][0] for attribute in learned}
        for attribute, values in options.items():
            for value in values:
                yield {attribute: value}
        for count in range(len(options), 1, -1):
            for chosen in itertools.combinations(options, count):
                yield {attribute: options[attribute][0] for attribute in chosen}

    def _sizes(self, name: str) -> dict[int, list[int]]:
        """Return what sizes became of those that tensors in the layer had.

        Heads may lie in the axis of the samples: of as many as those there are beside each.
        """
        found: dict[int, list[int]] = {}
        of_samples: dict[int, list[int]] = {}
        samples = len(self._example[0])
        for call in self._calls:
            if call.layer == name or call.layer.startswith(f"{name}."):
                for shape, held in (*call.inputs, *call.outputs):
                    left = left_shape(shape, held, self._gone)
                    for axis, (before, after) in enumerate(zip(shape, left, strict=True)):
                        if before != after and after not in found.setdefault(before, []):
                            found[before].append(after)
                        if before != after and axis == 0 and held.of_input and before % samples == after % samples == 0:
                            of_samples.setdefault(before // samples, []).append(after // samples)
        for before, sizes in of_samples.items():
            known = found.setdefault(before, [])
            known += [after for after in dict.fromkeys(sizes) if after not in known]
        return found


def _other_sizes(value: Any, sizes: Mapping[int, Sequence[int]]) -> list[Any]:
    """Return what an attribute may be now: a number, or numbers in a row, of which some were sizes that changed."""
    if isinstance(value, int) and not isinstance(value, bool):
        return list(sizes.get(value, ()))
    if isinstance(value, (tuple, list)) and value and all(type(one) is int for one in value):
        changed = [sizes[one][0] if one in sizes else one for one in value]
        return [type(value)(changed)] if changed != list(value) else []
    return []


def _set(layer: nn.Module, values: Mapping[str, Any]) -> None:
    for attribute, value in values.items():
        setattr(layer, attribute, value)


def _around(name: str) -> Iterator[str]:
    """Yield the name of a layer and of those around it."""
    yield name
    while name:
        name = name.rpartition(".")[0]
        yield name


def forget(module: nn.Module, kept: Sequence[tuple[str, str]]) -> None:
    """Empty what layers keep of their own computations, to be made anew."""
    for layer, attribute in kept:
        getattr(module.get_submodule(layer), attribute).clear()
