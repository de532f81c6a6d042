"""The cuts that take away an amount: chosen by an estimate, made, measured on what they leave, and checked by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from plimsoll_api.spec import AmountOf
from plimsoll_job.errors import UserError
from plimsoll_job.memory import give_back
from plimsoll_job.techniques.prune.amount import WORDS, Estimate, measure
from plimsoll_job.techniques.prune.groups import ChannelGroup, Coupling
from plimsoll_job.techniques.prune.importance import Score
from plimsoll_job.techniques.prune.iterations import Goal
from plimsoll_job.techniques.prune.ranking import CLOSE_ENOUGH, Selection, select_cuts
from plimsoll_job.techniques.prune.soundness import Checks, cut_soundly, least_cut, unsound_groups
from plimsoll_job.techniques.shape import Bench, Cut

#: A measured share this near to the estimated one needs no second choice.
WELL_ESTIMATED = 0.001
#: Reasons that a message lists.
MOST_REASONS = 3
#: How often groups that cannot go are looked for: what is cut in their stead may show others.
MOST_ROUNDS = 8


@dataclass(frozen=True)
class Shed:
    """A module after its cuts; `selection.share` is measured, `left` says why by the roots of groups that cannot go.

    Without cuts, where the amount is less than the smallest channel, it is the module as given.
    """

    module: nn.Module
    selection: Selection
    groups: tuple[ChannelGroup, ...]
    left: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Shedding:
    """What is to go of a module, by the scores of its groups' channels."""

    of: AmountOf
    goal: Goal
    module: nn.Module
    coupling: Coupling
    scores: Mapping[str, Score]
    bench: Bench

    def shed(self) -> Shed:
        """Return the module without the channels of the lowest scores, the amount met as nearly as they can.

        Groups that turn out not to be prunable are left whole. UserError when the step's amount cannot be met.
        """
        left: dict[str, str] = {}
        groups, checks = self.coupling.groups, Checks.of(self.coupling)
        for _ in range(MOST_ROUNDS):
            done, cuts, reason = self._once(groups, left)
            if not reason:
                return replace(done, left=left)
            left |= self._unsound(cuts, checks)
            # Those that the choice passed over may be chosen next.
            least = [least_cut(group) for group in groups if group.root not in {one.layer for one in cuts}]
            left |= self._unsound(least, checks)
            groups = tuple(group for group in self.coupling.groups if group.root not in left)
            if not groups:
                break
        raise UserError(f"{self.bench.spec_field}: {reason}", reason="NotPrunable")

    def _unsound(self, cuts: Sequence[Cut], checks: Checks) -> dict[str, str]:
        return unsound_groups(self.module, self.bench.signature, self.coupling, cuts, tell=self._tell, checks=checks)

    def _tell(self, share: float) -> None:
        told = f"looks for what of {len(self.coupling.groups)} groups of channels cannot go"
        self.bench.reporter.report("prune", 0.5 * share, told)

    def _once(self, groups: Sequence[ChannelGroup], left: Mapping[str, str]) -> tuple[Shed, Sequence[Cut], str]:
        """Return what the cuts leave, the cuts, and why it is not sound if it is not."""
        module, signature, goal, spec_field = self.module, self.bench.signature, self.goal, self.bench.spec_field
        ranked = {group.root: self.scores[group.root] for group in groups}
        units = {group.root: group.units_by(ranked[group.root]) for group in groups}
        before = measure(module, signature, self.of, spec_field)
        estimate = Estimate(module, signature, groups, self.of, spec_field)
        last = False
        while True:
            give_back()
            selection = select_cuts(ranked, goal.amount, estimate.share_of, units)
            # Of the whole step: what cannot be met is told before the first iteration.
            if goal.most > selection.largest_share + CLOSE_ENOUGH:
                raise UserError(
                    f"{spec_field}.amount: {goal.most:.1%} cannot be reached; {selection.largest_share:.1%} of the "
                    f"{WORDS[self.of]} can go before a layer would be empty{_told(left, self.coupling)}"
                )
            if not selection.cuts:
                return Shed(module, selection, tuple(groups)), (), ""
            verdict = cut_soundly(module, signature, self.coupling, selection.cuts)
            pruned = verdict.module
            if pruned is None:
                return Shed(module, selection, tuple(groups)), selection.cuts, verdict.reason
            share = 1 - measure(pruned, signature, self.of, spec_field) / before
            if last or abs(share - selection.share) <= WELL_ESTIMATED or selection.share <= 0:
                return Shed(pruned, replace(selection, share=share), tuple(groups)), selection.cuts, ""
            estimate.scale *= share / selection.share
            last = True
            # The second choice is made of the whole module again, and would stand beside the first.
            del pruned, verdict


def _told(left: Mapping[str, str], coupling: Coupling) -> str:
    """Return the reasons why channels stay, each with a layer of which they are."""
    reasons: dict[str, str] = {}
    for layer, reason in (*left.items(), *coupling.reasons.items()):
        reasons.setdefault(reason, layer)
    shown = [f"{layer} keeps its channels, since {reason}" for reason, layer in reasons.items() if reason]
    return "".join(f"; {one}" for one in shown[:MOST_REASONS])
