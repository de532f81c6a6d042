"""Whether channels can really go: the module without them answers as it would if they were not there.

What a run told of the module holds of that run. Where it does not hold of what is left, that may run all the same, and
answer nonsense.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.memory import give_back
from plimsoll_job.techniques.copying import copied
from plimsoll_job.techniques.prune.fitting import NotCutError
from plimsoll_job.techniques.prune.following import LAYS_OUT
from plimsoll_job.techniques.prune.groups import ChannelGroup, Coupling, Gone
from plimsoll_job.techniques.prune.masked import answer_without
from plimsoll_job.techniques.prune.resizing import cut_out
from plimsoll_job.techniques.shape import Cut

#: Largest difference of answers, as a share of the largest answer.
TOLERANCE = 1e-3
#: A difference up to here may be float32's rounding, which deep models amplify: it is looked at in double precision.
MAY_BE_ROUNDING = 0.1
#: How many sets of cuts are tried at most to find those that cannot go, and for how long; what is not cleared by then
#: stays.
MOST_CHECKS, MOST_SECONDS = 160, 600.0
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
    """How many checks a search has made, and since when: it ends, whatever the model."""

    made: int = 0
    began: float = field(default_factory=time.monotonic)
    most: int = MOST_CHECKS
    most_seconds: float = MOST_SECONDS

    def take(self) -> bool:
        """Count another check; False when none is left."""
        if self.made >= self.most or time.monotonic() - self.began > self.most_seconds:
            return False
        self.made += 1
        return True


def cut_soundly(module: nn.Module, signature: Signature, coupling: Coupling, cuts: Sequence[Cut]) -> Verdict:
    """Return what the cuts make of the module, if it answers as the module would without the channels."""
    example = example_of(signature)
    gone = coupling.gone(cuts, module)
    verdict, pruned = _compared(module, example, coupling, gone)
    if verdict.module is None and pruned is not None and 0 < verdict.difference <= MAY_BE_ROUNDING:
        give_back()
        # Code that has numbers of single precision of its own stops, and then what was seen holds.
        with contextlib.suppress(Exception):
            exact = [one.double() if one.is_floating_point() else one for one in example]
            if _compared(copied(module).double(), exact, coupling, gone)[0].module is not None:
                return Verdict(pruned)
    return verdict


def _compared(
    module: nn.Module, example: Sequence[torch.Tensor], coupling: Coupling, gone: Gone
) -> tuple[Verdict, nn.Module | None]:
    """Return the verdict, and the module without the channels where it computes at all."""
    try:
        wanted = _tensors(answer_without(module, example, coupling, gone))
        give_back()
        pruned, answers = cut_out(module, example, coupling, gone)
    except NotCutError as error:
        return Verdict(None, f"the channels cannot be cut: {error}", error), None
    given = _tensors(answers)
    if [one.shape for one in given] != [one.shape for one in wanted]:
        return Verdict(None, f"the answers change from {_shapes(wanted)} to {_shapes(given)}"), None
    for one, other in zip(given, wanted, strict=True):
        difference = float((one - other).abs().max()) if one.numel() else 0.0
        largest = max(float(other.abs().max()) if one.numel() else 0.0, 1e-6)
        if not difference <= TOLERANCE * largest:
            reason = f"the answers differ by {difference:.3g} from those that the channels should leave"
            return Verdict(None, reason, difference=difference / largest), pruned.eval()
    return Verdict(pruned.eval()), pruned


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
    count = checks or Checks()

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


def _tensors(answers: Any) -> list[torch.Tensor]:
    return [one for one in tree_leaves(answers) if isinstance(one, torch.Tensor)]


def _shapes(answers: Sequence[torch.Tensor]) -> str:
    return " and ".join(str(list(one.shape)) for one in answers)
