"""Whether channels can really go: the module without them answers as it would if they were not there.

What a run told of the module holds of that run. Where it does not hold of what is left, that may run all the same, and
answer nonsense.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from plimsoll_job.boundary import check_passing
from plimsoll_job.load.examples import Tensors, example_of, further_examples
from plimsoll_job.load.inputs import Signature
from plimsoll_job.memory import give_back
from plimsoll_job.techniques.copying import copied
from plimsoll_job.techniques.prune.answering import Told, asked, asked_without, each, has_spread, off_by
from plimsoll_job.techniques.prune.fitting import NotCutError
from plimsoll_job.techniques.prune.following import LAYS_OUT
from plimsoll_job.techniques.prune.groups import ChannelGroup, Coupling, Gone
from plimsoll_job.techniques.prune.reading import products_of
from plimsoll_job.techniques.prune.resizing import cut_out
from plimsoll_job.techniques.shape import Cut

#: A difference up to here may be float32's rounding, which deep models amplify: it is looked at in double precision.
MAY_BE_ROUNDING = 0.1
#: What the example is scaled by where all samples are answered by the same number.
FAR = (10.0, -10.0, 1000.0)
#: How many sets of cuts are tried at most to find those that cannot go; what is not cleared by then stays. No clock
#: counts: the same plan is to give the same artifact on a slow day.
MOST_CHECKS = 160
#: Of large models fewer are, by how many numbers one run computes, but so many always.
MOST_NUMBERS, LEAST_CHECKS = 40_000_000_000, 24
NOT_CLEARED = "they were not cleared within the checks that are made"


@dataclass(frozen=True)
class Verdict:
    """The module without the channels, or why it is not what the cuts should leave of the module.

    `failed` tells where its code does not follow, `difference` how far its answers are off, over the largest of them.
    """

    module: nn.Module | None = None
    reason: str = ""
    failed: NotCutError | None = None
    difference: float = 0.0


@dataclass
class Checks:
    """How many checks a search has made: it ends, whatever the model."""

    made: int = 0
    most: int = MOST_CHECKS

    @classmethod
    def of(cls, coupling: Coupling) -> Checks:
        """Return as many checks as a model of this size gets, by what one run of it computes."""
        numbers = sum(math.prod(shape) for call in coupling.flow.calls for shape, _ in call.outputs)
        return cls(most=max(LEAST_CHECKS, min(MOST_CHECKS, MOST_NUMBERS // max(1, numbers))))

    def take(self) -> bool:
        """Count another check; False when none is left."""
        if self.made >= self.most:
            return False
        self.made += 1
        return True


def cut_soundly(module: nn.Module, signature: Signature, coupling: Coupling, cuts: Sequence[Cut]) -> Verdict:
    """Return what the cuts make of the module, if it answers as the module would without the channels.

    What products read of the channels is compared too, and further samples: where all answers are zero they tell
    nothing.
    """
    gone = coupling.gone(cuts, module)
    examples = [example_of(signature), *further_examples(signature)]
    verdict, pruned = _compared(module, examples, coupling, gone)
    if verdict.module is None and pruned is not None and 0 < verdict.difference <= MAY_BE_ROUNDING:
        give_back()
        # Code that has numbers of single precision of its own stops, and then what was seen holds.
        with contextlib.suppress(Exception):
            exact = [each(example, lambda one: one.double()) for example in examples]
            if _compared(copied(module).double(), exact, coupling, gone)[0].module is not None:
                return Verdict(pruned)
    return verdict


def _compared(
    module: nn.Module, examples: Sequence[Tensors], coupling: Coupling, gone: Gone
) -> tuple[Verdict, nn.Module | None]:
    """Return the verdict, and the module without the channels where it computes at all."""
    products = products_of(coupling, gone)

    def wanted_of(example: Tensors) -> Told | None:
        """Return what the cut module should tell; none where that cannot be asked or compared."""
        # The run that all follows from may be none of these samples'.
        try:
            wanted = asked_without(module, example, coupling, gone, products)
        except Exception as error:
            check_passing(error)
            return None
        give_back()
        return wanted if all(bool(one.isfinite().all()) for one in (*wanted.answers, *wanted.read)) else None

    # All is asked of the module before it is cut: else all weights, those hidden and those cut would be held at once.
    try:
        told = [(examples[0], asked_without(module, examples[0], coupling, gone, products))]
        give_back()
        told += [(example, wanted) for example in examples[1:] if (wanted := wanted_of(example)) is not None]
        pruned, _ = cut_out(module, examples[0], coupling, gone)
    except NotCutError as error:
        return Verdict(None, f"the channels cannot be cut: {error}", error), None
    pruned = pruned.eval()
    # Far from the samples it is asked only where none of these tells anything.
    far = () if any(has_spread(one) for _, wanted in told for one in wanted.answers) else FAR
    scaled = (each(examples[0], partial(torch.mul, other=factor)) for factor in far)
    beyond = ((example, wanted) for example in scaled if (wanted := wanted_of(example)) is not None)
    for example, wanted in (*told, *beyond):
        try:
            given = asked(pruned, example, coupling, products)
        except NotCutError as error:
            return Verdict(None, f"the channels cannot be cut: {error}"), None
        off = off_by(given, wanted)
        if off is not None:
            return Verdict(None, off.reason, difference=off.share), pruned if off.share else None
        give_back()
    return Verdict(pruned), pruned


def unsound_groups(
    module: nn.Module,
    signature: Signature,
    coupling: Coupling,
    cuts: Sequence[Cut],
    *,
    tell: Callable[[float], None] = lambda _: None,
    checks: Checks | None = None,
) -> dict[str, str]:
    """Return why channels cannot go, by the roots of their cuts; all others are sound together.

    Where cuts are sound alone but not beside each other, the later of them cannot go.
    """
    found: dict[str, str] = {}
    count = checks or Checks.of(coupling)

    def sift(kept: Sequence[Cut], some: Sequence[Cut]) -> None:
        """Find what of some cannot go beside what is kept, which is sound."""
        if not some:
            return
        if not count.take():
            found.update(dict.fromkeys((one.layer for one in some), NOT_CLEARED))
            return
        tell(count.made / count.most)
        verdict = cut_soundly(module, signature, coupling, [*kept, *some])
        if verdict.module is not None:
            return
        named = [] if verdict.failed is None else _at(verdict.failed, module, coupling, some)
        if named or len(some) == 1:
            stay = named or some
            found.update({one.layer: verdict.reason for one in stay})
            sift(kept, [one for one in some if one not in stay])
            return
        first, second = some[: len(some) // 2], some[len(some) // 2 :]
        sift(kept, first)
        sift([*kept, *(one for one in first if one.layer not in found)], second)

    sift((), cuts)
    return found


def _at(failed: NotCutError, module: nn.Module, coupling: Coupling, cuts: Sequence[Cut]) -> list[Cut]:
    """Return the cuts that change what a layer fails to compute with, and what others of its kind would."""
    calls = coupling.flow.calls
    # It may be an operation that lays out tensors, before the next one that computes.
    to_come = range(max(failed.number, 0), len(calls))
    last = next((at for at in to_come if calls[at].name not in LAYS_OUT), len(calls) - 1)
    kinds = {name: type(layer) for name, layer in module.named_modules()}
    turns: dict[str, int] = {}
    places = []
    for call in calls:
        turns[call.layer] = turns.get(call.layer, -1) + 1
        places.append((kinds[call.layer], turns[call.layer]))
    suspects = {places[at] for at in to_come if at <= last and calls[at].layer == failed.layer}
    changed = [
        labels.numpy().reshape(-1)
        for call, place in zip(calls, places, strict=True)
        if place in suspects
        for _, held in (*call.inputs, *call.outputs)
        for labels in held.labels
    ]
    if not changed:
        return []
    atoms = np.unique(np.concatenate(changed))
    return [one for one in cuts if coupling.gone([one], module)[atoms].any()]


def least_cut(group: ChannelGroup) -> Cut:
    """Return the cut of as little of a group as can go."""
    units = [lane[0] for lane in group.lanes] if group.lanes else [0]
    return Cut(group.root, tuple(sorted(channel for unit in units for channel in group.units[unit])))
