"""Structured pruning: the least important channels and neurons are deleted, and the model gets smaller and faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from plimsoll_api.spec import ActivationStatistic, Prune, PruneCriterion
from plimsoll_job.errors import UserError
from plimsoll_job.figures import example_of
from plimsoll_job.techniques.check import check_runs
from plimsoll_job.techniques.observe import batches_of
from plimsoll_job.techniques.prune.amount import WORDS, measure
from plimsoll_job.techniques.prune.compensation import Refitted, compensate
from plimsoll_job.techniques.prune.coupling import ChannelGroup, cut, find_groups, is_grouped
from plimsoll_job.techniques.prune.importance import Scores, activation_scores, magnitude_scores
from plimsoll_job.techniques.prune.ranking import CLOSE_ENOUGH, select_cuts
from plimsoll_job.techniques.prune.redundancy import redundancy_scores
from plimsoll_job.techniques.shape import Applied, Bench, Candidate, Cut


def prune_structured(settings: Prune, candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate without its least important channels, the amount met as nearly as whole channels can."""
    assert settings.amount is not None  # noqa: S101 — required by the granularity
    module, signature, amount = candidate.module, bench.signature, settings.amount.value
    amount_field = f"{bench.spec_field}.amount"
    groups = find_groups(module, signature)
    if not groups:
        raise UserError(f"{bench.spec_field}: the model has no layer whose channels could go", reason="NotPrunable")
    scores = _score(settings, module, groups, bench)
    before = measure(module, signature, settings.of)

    def share_of(cuts: Sequence[Cut]) -> float:
        return 1 - measure(cut(module, signature, cuts), signature, settings.of) / before

    selection = select_cuts(scores, amount, share_of)
    if amount > selection.largest_share + CLOSE_ENOUGH:
        raise UserError(
            f"{amount_field}: {settings.amount} cannot be reached; "
            f"{selection.largest_share:.1%} of the {WORDS[settings.of]} can go before a layer would be empty"
        )
    if not selection.cuts:
        raise UserError(f"{amount_field}: {settings.amount} is less than the smallest channel; nothing would change")
    pruned = cut(module, signature, selection.cuts)
    with torch.no_grad():
        check_runs(pruned, signature, module(*example_of(signature)).shape, bench.spec_field, "NotPrunable")
    details, notes = {}, _notes(amount, selection.share, module)
    if settings.criterion is PruneCriterion.REDUNDANCY:
        bench.reporter.report("prune", 0.6, "refits what reads the channels that are left")
        samples = bench.need_calibration()
        refitted = compensate(module, pruned, groups, selection.cuts, lambda: batches_of(samples))
        details, notes = {"refitted": _describe(refitted)}, (*notes, *_thin_data(refitted))
    bench.reporter.report("prune", 1, f"{selection.share:.1%} of the {WORDS[settings.of]} are gone")
    return Applied(
        candidate=replace(candidate, module=pruned, changes=(*candidate.changes, *selection.cuts)),
        details={
            "share": round(selection.share, 6),
            "of": settings.of.value,
            "blockWidth": selection.block_width,
            "channels": _channels(groups, selection.cuts),
            **details,
        },
        notes=notes,
    )


def _score(settings: Prune, module: nn.Module, groups: Sequence[ChannelGroup], bench: Bench) -> Scores:
    if settings.criterion is PruneCriterion.MAGNITUDE:
        return magnitude_scores(module, groups)
    batches = batches_of(bench.need_calibration())
    if settings.criterion is PruneCriterion.REDUNDANCY:
        return redundancy_scores(module, groups, batches)
    statistic = settings.statistic or ActivationStatistic.MEAN_ABSOLUTE
    scores = activation_scores(module, groups, batches, statistic)
    if statistic is ActivationStatistic.ZERO_SHARE and all(len(set(of_channel)) == 1 for of_channel in scores.values()):
        raise UserError(
            f"{bench.spec_field}.statistic: all channels of a layer are zero equally often, as after GELU or without "
            "an activation; MeanAbsolute or Wanda tell them apart"
        )
    return scores


def _channels(groups: Sequence[ChannelGroup], cuts: Sequence[Cut]) -> dict[str, list[int]]:
    """Return, by layer, how many output channels there were and how many are left."""
    gone = {one.layer: len(one.channels) for one in cuts}
    return {group.root: [group.channel_count, group.channel_count - gone.get(group.root, 0)] for group in groups}


def _describe(refitted: Sequence[Refitted]) -> dict[str, dict[str, Any]]:
    """Return, by consumer, the channels that it reads and how wrong its outputs are, refitted and merely cut."""
    return {
        one.layer: {
            "channels": [one.channels_before, one.channels_after],
            "errorOfCut": round(one.error_of_cut, 6),
            "error": round(one.error, 6),
        }
        for one in refitted
    }


def _thin_data(refitted: Sequence[Refitted]) -> tuple[str, ...]:
    thin = [one for one in refitted if one.row_count < one.channels_before]
    return tuple(
        f"{one.layer}: {one.row_count} rows of calibration data cannot tell {one.channels_before} channels apart; "
        "give more samples."
        for one in thin
    )


def _notes(amount: float, share: float, module: nn.Module) -> tuple[str, ...]:
    notes = []
    if abs(share - amount) > CLOSE_ENOUGH:
        notes.append(f"{amount:.1%} was ordered; {share:.1%} is as near as whole channels come.")
    if grouped := [name for name, layer in module.named_modules() if is_grouped(layer)]:
        notes.append(f"What grouped convolutions read and write was left whole: {', '.join(grouped)}.")
    return tuple(notes)
