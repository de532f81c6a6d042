"""Unstructured pruning: the least important weights are set to zero, and stay zero in later training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from plimsoll_api.artifact import Leftover
from plimsoll_api.spec import Allocation, Granularity, Prune, PruneCriterion, Scope
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count_parameters
from plimsoll_job.techniques.left import leave
from plimsoll_job.techniques.normalisation import Before
from plimsoll_job.techniques.observe import Batches
from plimsoll_job.techniques.padding import Padding, find_padding
from plimsoll_job.techniques.prune.iterations import Goal, Turn, take_turns
from plimsoll_job.techniques.prune.record import told_of_turns
from plimsoll_job.techniques.prune.sensitivity import Scan, scan
from plimsoll_job.techniques.prune.sparsity import keep_largest_of_all, keep_pattern, keep_share
from plimsoll_job.techniques.prune.statistics import measure_inputs
from plimsoll_job.techniques.prune.weights import Weight, other_matrices, weights_of
from plimsoll_job.techniques.shape import Applied, Bench, Candidate

NOTE = (
    "Single weights were set to zero: the file and the latency stay as they are, since neither ONNX nor its runtime "
    "stores or computes dense layers any smaller for zeros. Structured pruning makes models smaller and faster."
)

#: What computes the scores of a weight, as [outputs, inputs, …], by its name: held at once they would be another model.
Scores = dict[str, Callable[[], torch.Tensor]]
#: The name of each weight with where its weights stay.
Masks = Iterator[tuple[str, torch.Tensor]]


def prune_unstructured(settings: Prune, candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate with the least important weights of its layers set to zero."""
    course = take_turns(settings, candidate, bench, partial(_take_turn, settings))
    if course.candidate is candidate:
        raise UserError(
            f"{bench.spec_field}: {course.taken:.1%} of the parameters are zero already; nothing would change",
            reason="NothingChanged",
        )
    bench.reporter.report("prune", 1, f"{course.taken:.1%} of the parameters are zero")
    return Applied(
        candidate=course.candidate,
        details={"share": round(course.taken, 6), **told_of_turns(course.records)},
        notes=(NOTE, *course.notes),
        left=course.left,
        reached=course.reached,
    )


def _take_turn(settings: Prune, candidate: Candidate, goal: Goal, bench: Bench) -> Turn:
    """Set to zero what the goal plans, or the pattern says, of the weights, ranked as they are now."""
    module = candidate.module
    found = weights_of(module)
    padding = Padding() if settings.criterion is PruneCriterion.MAGNITUDE else _padding(module, found, bench)
    scores = _score(settings, module, found, bench, padding)
    weights = {name: found[name].values for name in scores}
    details: dict[str, Any] = padding.to_details()
    if settings.granularity is Granularity.N_OF_M:
        masks = _masks_of_pattern(settings, weights, scores, bench)
    else:
        share = _share_of_weights(goal, module, weights, bench)
        scope = settings.scope or _default_scope(settings)
        if settings.allocation is Allocation.SENSITIVITY:
            scanned = _scan_weights(module, found, scores, scope, bench)
            scores = {name: partial(_cost, scanned, name, score, scope) for name, score in scores.items()}
            scope, details["sensitivity"] = Scope.GLOBAL, scanned.to_wire()
        masks = _masks_of_amount(share, scope, weights, scores)
    before = Before.of(settings.statistics, module, bench)
    zeros, new_zeros, digest = dict[str, int](), 0, hashlib.sha256()
    for name, mask in masks:
        new_zeros += int(((weights[name] != 0) & ~mask).sum())
        weights[name].mul_(mask)
        zeros[name] = int((weights[name] == 0).sum())
        # A bit a weight, in the order of the layers.
        digest.update(np.packbits(mask.numpy()).tobytes())
    taken = sum(zeros.values()) / count_parameters(module)
    if not new_zeros:
        return Turn(candidate, taken)
    renewed, unrenewed = before.renew(module)
    return Turn(
        candidate=replace(
            candidate, module=module, sparse=candidate.sparse | {found[name].parameter for name in zeros}
        ),
        taken=taken,
        details={
            "zeros": {name: round(count / weights[name].numel(), 6) for name, count in zeros.items()},
            "maskDigest": f"sha256:{digest.hexdigest()}",
            **renewed,
            **details,
        },
        left=_left(settings, module, found, zeros),
        reached=frozenset(zeros),
        notes=(*padding.notes(), *unrenewed),
    )


def _padding(module: nn.Module, weights: Mapping[str, Weight], bench: Bench) -> Padding:
    """Return where padding is in what the weights multiply."""
    reads = [read for weight in weights.values() for read in weight.reads]
    return find_padding(module, reads, Batches.of(bench.need_calibration(), bench.ranks.device))


def _score(settings: Prune, module: nn.Module, weights: Mapping[str, Weight], bench: Bench, padding: Padding) -> Scores:
    """Return how much each weight matters: its size, or with Wanda its size times the norm of what it multiplies.

    Wanda: Sun et al. 2023, arXiv 2306.11695. A layer that the model reads without calling it has no such score.
    """
    if settings.criterion is PruneCriterion.MAGNITUDE:
        return {name: weight.size for name, weight in weights.items()}
    batches = Batches.of(bench.need_calibration(), bench.ranks.device)
    reads = [read for weight in weights.values() for read in weight.reads]
    squares = measure_inputs(module, reads, batches, torch.square, padding)
    return {
        name: partial(weight.wanda, torch.cat([squares[read] for read in weight.reads]).sqrt().float())
        for name, weight in weights.items()
        if weight.reads and all(read in squares for read in weight.reads)
    }


def _default_scope(settings: Prune) -> Scope:
    if settings.criterion is not PruneCriterion.MAGNITUDE:
        return Scope.OUTPUT
    return Scope.GLOBAL if settings.allocation is Allocation.SCORES else Scope.LAYER


def _in_scope(score: torch.Tensor, scope: Scope) -> torch.Tensor:
    """Return the layer's scores as rows, each of which gives the same share."""
    return score.reshape(len(score) if scope is Scope.OUTPUT else 1, -1)


def _scan_weights(module: nn.Module, found: Mapping[str, Weight], scores: Scores, scope: Scope, bench: Bench) -> Scan:
    """Return what each layer costs when its weights of the lowest scores are zero."""

    @contextmanager
    def silence(names: Sequence[str], share: float) -> Iterator[None]:
        # Anew each time: the scan may have moved them.
        weights = {name: found[name].values for name in names}
        kept = {name: weight.clone() for name, weight in weights.items()}
        for name, weight in weights.items():
            weight.mul_(_keep(scores[name](), scope, share))
        try:
            yield
        finally:
            for name, weight in weights.items():
                weight.copy_(kept[name])

    return scan(module, list(scores), silence, bench.need_calibration(), bench.ranks.device)


def _cost(found: Scan, name: str, score_of: Callable[[], torch.Tensor], scope: Scope) -> torch.Tensor:
    """Return what each weight of the layer costs by the scan; inside a row they stay in the order of the scores.

    What is nothing by its score costs nothing: what earlier iterations took counts as a part of the amount.
    """
    score = score_of()
    rows = _in_scope(score, scope)
    order = torch.argsort(rows, dim=1, stable=True)
    places = (torch.arange(rows.shape[1], dtype=torch.float64) + 0.5) / rows.shape[1]
    # Where the scan sees no difference all rows give alike.
    of_place = torch.from_numpy(found.marginal_cost(name, places.numpy())) / score.numel() + 1e-15 * places
    cost = torch.empty(rows.shape, dtype=torch.float64).scatter_(1, order, of_place.expand_as(order)).view_as(score)
    return cost.masked_fill(score == 0, 0.0)


def _share_of_weights(goal: Goal, module: nn.Module, weights: Mapping[str, torch.Tensor], bench: Bench) -> float:
    """Return the share of the weights that is to be zero; UserError where not even all of them would be enough."""
    total, count = count_parameters(module), sum(weight.numel() for weight in weights.values())
    if goal.final * total > count:
        raise UserError(
            f"{bench.spec_field}.amount: {goal.final:.1%} cannot be reached; "
            f"weights of convolutions, linear and recurrent layers and attention are {count / total:.1%} of the "
            "parameters"
        )
    return goal.planned * total / max(count, 1)


def _masks_of_amount(share: float, scope: Scope, weights: Mapping[str, torch.Tensor], scores: Scores) -> Masks:
    if scope is Scope.GLOBAL:
        dropped = round(share * sum(weight.numel() for weight in weights.values()))
        return zip(scores, keep_largest_of_all(lambda: (score() for score in scores.values()), dropped), strict=True)
    return ((name, _keep(score(), scope, share)) for name, score in scores.items())


def _keep(score: torch.Tensor, scope: Scope, share: float) -> torch.Tensor:
    return keep_share(_in_scope(score, scope), share).view_as(score)


def _masks_of_pattern(settings: Prune, weights: Mapping[str, torch.Tensor], scores: Scores, bench: Bench) -> Masks:
    kept, of = settings.kept_of
    fits = [name for name, weight in weights.items() if weight.shape[1] % of == 0]
    if not fits:
        raise UserError(
            f"{bench.spec_field}.pattern: no layer reads a multiple of {of} inputs, so {settings.pattern} fits none"
        )
    return ((name, keep_pattern(scores[name](), kept, of)) for name in fits)


def _left(
    settings: Prune, module: nn.Module, weights: Mapping[str, Weight], masks: Collection[str]
) -> tuple[Leftover, ...]:
    """Return why layers stay dense that are, or have, no weights among which zeros are set."""
    unfit = "the pattern does not divide what it reads, or the model reads its weight without calling it"
    unseen = "Wanda weighs by what is multiplied, which is not measured in it; Magnitude sets zeros in it"
    unknown = "it is no weight of a convolution without transposed groups, a linear layer, a recurrent one or attention"
    owners = {weight.parameter.rpartition(".")[0] for name, weight in weights.items() if name in masks}
    found = {
        owner: unfit if weight.reads or settings.criterion is PruneCriterion.MAGNITUDE else unseen
        for weight in weights.values()
        if (owner := weight.parameter.rpartition(".")[0]) not in owners
    }
    others = (name.rpartition(".")[0] for name in other_matrices(module, weights))
    found = {owner: unknown for owner in others if owner not in owners} | found
    return tuple(leave(name, type(module.get_submodule(name)).__name__, why) for name, why in found.items())
