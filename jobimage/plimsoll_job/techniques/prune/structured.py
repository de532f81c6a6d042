"""Structured pruning: the least important channels and neurons are deleted, and the model gets smaller and faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from plimsoll_api.spec import ActivationStatistic, Allocation, Prune, PruneCriterion
from plimsoll_job.errors import UserError
from plimsoll_job.techniques.left import largest_left
from plimsoll_job.techniques.normalisation import Before
from plimsoll_job.techniques.observe import Batches
from plimsoll_job.techniques.padding import Padding, find_padding
from plimsoll_job.techniques.prune.allocation import scan_channels, scores_of
from plimsoll_job.techniques.prune.amount import WORDS, Estimate
from plimsoll_job.techniques.prune.compensation import compensate
from plimsoll_job.techniques.prune.coupling import find_coupling
from plimsoll_job.techniques.prune.cutting import Shedding
from plimsoll_job.techniques.prune.groups import ChannelGroup, positions_of
from plimsoll_job.techniques.prune.importance import Scores, activation_scores, magnitude_scores
from plimsoll_job.techniques.prune.iterations import Goal, Turn, take_turns
from plimsoll_job.techniques.prune.plain import put_plain_layers
from plimsoll_job.techniques.prune.record import (
    channels_by_layer,
    describe_refits,
    gone_by_layer,
    left_whole,
    notes_on_amount,
    notes_on_cuts,
    notes_on_data,
    reached_by,
    told_of_turns,
    units_by_layer,
)
from plimsoll_job.techniques.prune.redundancy import redundancy_scores
from plimsoll_job.techniques.prune.taylor import taylor_scores
from plimsoll_job.techniques.shape import Applied, Bench, Candidate, Cut


def prune_structured(settings: Prune, candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate without its least important channels, the amount met as nearly as whole channels can."""
    assert settings.amount is not None  # noqa: S101 — required by the granularity
    if candidate.sparse and settings.criterion is PruneCriterion.REDUNDANCY:
        raise UserError(f"{bench.spec_field}: zeros of an unstructured prune would be lost in refitted weights")
    renamed = put_plain_layers(candidate.module)
    sparse = frozenset(name for before in candidate.sparse for name in renamed.get(before, (before,)))
    candidate = replace(candidate, sparse=sparse)
    course = take_turns(settings, candidate, bench, partial(_take_turn, settings))
    if course.candidate.changes == candidate.changes:
        raise UserError(
            f"{bench.spec_field}.amount: {settings.amount} is less than the smallest channel; nothing would change"
        )
    bench.reporter.report("prune", 1, f"{course.taken:.1%} of the {WORDS[settings.of]} are gone")
    return Applied(
        candidate=course.candidate,
        details={"share": round(course.taken, 6), "of": settings.of.value, **told_of_turns(course.records)},
        notes=(*notes_on_amount(settings.amount.value, course.taken), *course.notes),
        left=course.left,
        reached=course.reached,
    )


def _take_turn(settings: Prune, candidate: Candidate, goal: Goal, bench: Bench) -> Turn:
    """Take the goal's amount of the candidate's channels, ranked as they are now."""
    module = candidate.module
    coupling = find_coupling(module, bench.signature)
    groups = coupling.groups
    if not groups:
        left = left_whole(module, {}, coupling.reasons)
        raise UserError(
            f"{bench.spec_field}: the model has no layer whose channels could go; the largest: "
            f"{largest_left('prune', module, left)}",
            reason="NotPrunable",
        )
    padding = Padding() if settings.criterion is PruneCriterion.MAGNITUDE else _padding(module, groups, bench)
    scores = _score(settings, module, groups, bench, padding)
    details: dict[str, Any] = padding.to_details()
    if settings.allocation is Allocation.SENSITIVITY:
        scan = scan_channels(module, groups, scores, bench.need_calibration(), bench.ranks.device)
        scores = scores_of(
            scan, groups, scores, Estimate(module, bench.signature, groups, settings.of, bench.spec_field)
        )
        details["sensitivity"] = scan.to_wire()
    before = Before.of(settings.statistics, module, bench)
    done = Shedding(settings.of, goal, module, coupling, scores, bench).shed()
    turn = 1 + max((one.turn for one in candidate.changes if isinstance(one, Cut)), default=-1)
    cuts = tuple(replace(one, turn=turn) for one in done.selection.cuts)
    reached = reached_by(done.groups)
    left = left_whole(module, done.left, coupling.reasons, reached)
    if not cuts:
        return Turn(candidate, goal.taken, left=left, reached=reached)
    notes = notes_on_cuts(done.left)
    if settings.criterion is PruneCriterion.REDUNDANCY:
        bench.reporter.report("prune", 0.6, "refits what reads the channels that are left")
        batches = Batches.of(bench.need_calibration(), bench.ranks.device)
        refitted = compensate(module, done.module, done.groups, cuts, batches, padding=padding)
        details["refitted"], notes = describe_refits(refitted), (*notes, *notes_on_data(refitted))
    gone = positions_of(done.groups, cuts)
    renewed, unrenewed = before.renew(done.module, {name: at for (name, _, axis), at in gone.items() if axis == 0})
    details |= {**renewed, **units_by_layer(done.groups, cuts)}
    notes = (*notes, *padding.notes(), *unrenewed)
    return Turn(
        candidate=replace(candidate, module=done.module, changes=(*candidate.changes, *cuts)),
        taken=goal.taken_with(done.selection.share),
        details={
            "blockWidth": done.selection.block_width,
            "channels": channels_by_layer(done.groups, cuts),
            **gone_by_layer(cuts),
            **details,
        },
        notes=notes,
        left=left,
        reached=reached,
    )


def _padding(module: nn.Module, groups: Sequence[ChannelGroup], bench: Bench) -> Padding:
    """Return where padding is in what reads the channels of the groups."""
    names = dict.fromkeys(member.name for group in groups for member in group.consumers)
    return find_padding(module, names, Batches.of(bench.need_calibration(), bench.ranks.device))


def _score(
    settings: Prune, module: nn.Module, groups: Sequence[ChannelGroup], bench: Bench, padding: Padding
) -> Scores:
    if settings.criterion is PruneCriterion.MAGNITUDE:
        return magnitude_scores(module, groups)
    batches = Batches.of(bench.need_calibration(), bench.ranks.device)
    if settings.criterion is PruneCriterion.REDUNDANCY:
        return redundancy_scores(module, groups, batches, padding)
    if settings.criterion is PruneCriterion.TAYLOR:
        return taylor_scores(module, groups, batches, bench.seed, f"{bench.spec_field}.criterion")
    statistic = settings.statistic or ActivationStatistic.MEAN_ABSOLUTE
    scores = activation_scores(module, groups, batches, statistic, padding)
    if statistic is ActivationStatistic.ZERO_SHARE and all(
        len(set(scores[group.root][np.array(group.units)].flatten())) == 1 for group in groups
    ):
        raise UserError(
            f"{bench.spec_field}.statistic: all channels of a layer are zero equally often, as after GELU or without "
            "an activation; MeanAbsolute or Wanda tell them apart"
        )
    return scores
