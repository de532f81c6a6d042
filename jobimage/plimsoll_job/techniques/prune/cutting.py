"""The cuts that take away an amount: chosen by an estimate, made, measured on what they leave, and checked by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from plimsoll_api.spec import AmountOf
from plimsoll_job.errors import UserError
from plimsoll_job.memory import give_back
from plimsoll_job.techniques.prune.amount import WORDS, Estimate, measure
from plimsoll_job.techniques.prune.coupling import ChannelGroup
from plimsoll_job.techniques.prune.importance import Score
from plimsoll_job.techniques.prune.iterations import Goal
from plimsoll_job.techniques.prune.ranking import CLOSE_ENOUGH, Selection, select_cuts
from plimsoll_job.techniques.prune.soundness import cut_soundly, unsound_groups
from plimsoll_job.techniques.shape import Bench

#: A measured share this near to the estimated one needs no second choice.
WELL_ESTIMATED = 0.001


@dataclass(frozen=True)
class Shed:
    """A module after its cuts; `selection.share` is measured, `left` are the roots of groups that could not go.

    Without cuts, where the amount is less than the smallest channel, it is the module as given.
    """

    module: nn.Module
    selection: Selection
    groups: tuple[ChannelGroup, ...]
    left: tuple[str, ...] = ()


def shed(
    of: AmountOf, goal: Goal, module: nn.Module, ranked: Sequence[tuple[ChannelGroup, Score]], bench: Bench
) -> Shed:
    """Return the module without the channels of the lowest scores, the amount met as nearly as whole channels can.

    Groups that turn out not to be prunable are left whole. UserError when the step's amount cannot be met.
    """
    done, reason = _shed_once(of, goal, module, ranked, bench)
    if not reason:
        return done
    unsound = unsound_groups(module, bench.signature, [group for group, _ in ranked])
    sound = [(group, score) for group, score in ranked if group.root not in unsound]
    if unsound and sound:
        done, reason = _shed_once(of, goal, module, sound, bench)
    if reason:
        raise UserError(f"{bench.spec_field}: {reason}", reason="NotPrunable")
    return replace(done, left=tuple(unsound))


def _shed_once(
    of: AmountOf, goal: Goal, module: nn.Module, ranked: Sequence[tuple[ChannelGroup, Score]], bench: Bench
) -> tuple[Shed, str]:
    """Return what the cuts leave, and why it is not sound if it is not."""
    signature = bench.signature
    groups, scores = [group for group, _ in ranked], {group.root: score for group, score in ranked}
    before = measure(module, signature, of, bench.spec_field)
    estimate = Estimate(module, signature, groups, of, bench.spec_field)
    last = False
    while True:
        give_back()
        selection = select_cuts(scores, goal.amount, estimate.share_of, {group.root: group.unit for group in groups})
        # Of the whole step: what cannot be met is told before the first iteration.
        if goal.most > selection.largest_share + CLOSE_ENOUGH:
            raise UserError(
                f"{bench.spec_field}.amount: {goal.most:.1%} cannot be reached; {selection.largest_share:.1%} of the "
                f"{WORDS[of]} can go before a layer would be empty"
            )
        if not selection.cuts:
            return Shed(module, selection, tuple(groups)), ""
        pruned, reason = cut_soundly(module, signature, groups, selection.cuts)
        if pruned is None:
            return Shed(module, selection, tuple(groups)), reason
        share = 1 - measure(pruned, signature, of, bench.spec_field) / before
        if last or abs(share - selection.share) <= WELL_ESTIMATED or selection.share <= 0:
            return Shed(pruned, replace(selection, share=share), tuple(groups)), ""
        estimate.scale *= share / selection.share
        last = True
        # The second choice is made of the whole module again, and would stand beside the first.
        del pruned
