"""Factorization: layers become products of smaller ones, of the ranks that keep an energy or take away an amount."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from plimsoll_api.spec import Factorize, FactorizeMethod
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count_parameters
from plimsoll_job.load.examples import example_of
from plimsoll_job.techniques.check import check_runs
from plimsoll_job.techniques.factorize.decompose import Decomposition, decompose
from plimsoll_job.techniques.factorize.layers import Target, find_targets
from plimsoll_job.techniques.factorize.ranks import Choice, Frontier, energy_for, frontier_of
from plimsoll_job.techniques.factorize.split import set_weights, split
from plimsoll_job.techniques.factorize.whitening import measure_moments, whiten
from plimsoll_job.techniques.left import largest_left, leave
from plimsoll_job.techniques.moments import bundled
from plimsoll_job.techniques.normalisation import Before
from plimsoll_job.techniques.observe import Batches
from plimsoll_job.techniques.padding import Padding, find_padding
from plimsoll_job.techniques.shape import Applied, Bench, Candidate, Split

#: An amount is met when the share taken away is this near to it; whole ranks come no nearer in small models.
CLOSE_ENOUGH = 0.01


def apply(settings: Factorize, candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate with every layer factorized that gets smaller and faster by it, the others left."""
    module, signature = candidate.module, bench.signature
    if candidate.sparse:
        raise UserError(f"{bench.spec_field}: zeros of an unstructured prune would be lost in dense factors")
    targets, left = find_targets(module, signature)
    padding = _padding(settings.method, module, targets, bench)
    bench.reporter.report("factorize", 0.1, f"decomposes {len(targets)} layers")
    frontiers = []
    for number, (target, found) in enumerate(_decomposed(settings.method, module, targets, bench, padding), 1):
        frontiers.append(frontier_of(target, found.energy))
        bench.reporter.report("factorize", 0.2 + 0.5 * number / len(targets), target.name)
    told = [leave(name, type(module.get_submodule(name)).__name__, why) for name, why in left.items()]
    others = largest_left("factorize", module, told, [target.name for target in targets])
    energy = _energy(settings, module, frontiers, f"; what it leaves: {others}" if others else "", bench)
    chosen = {frontier.target.name: frontier.keeping(energy) for frontier in frontiers}
    splits = tuple(Split(name, choice.ranks) for name, choice in chosen.items() if choice is not None)
    if not splits:
        most = max(frontier.choices[-1].energy for frontier in frontiers if frontier.choices)
        raise UserError(
            f"{bench.spec_field}.keep: no layer that keeps {settings.keep} of its energy gets smaller and faster; "
            f"{most:.2%} is the most that one can keep",
            reason="NotFactorizable",
        )
    factorized = split(module, splits)
    ranks = {one.layer: one.ranks for one in splits}
    split_targets = [target for target in targets if target.name in ranks]
    for target, found in _decomposed(settings.method, module, split_targets, bench, padding):
        layers = factorized.get_submodule(target.name)
        assert isinstance(layers, nn.Sequential)  # noqa: S101 — what split puts there
        set_weights(layers, found.factors(ranks[target.name]), target.layer.bias)
    before = Before.of(settings.batch_norm, module, bench)
    renewed, unrenewed = before.renew(factorized)
    with torch.no_grad():
        check_runs(factorized, signature, module(*example_of(signature)).shape, bench.spec_field, "NotFactorizable")
    share = 1 - count_parameters(factorized) / count_parameters(module)
    bench.reporter.report("factorize", 1, f"{share:.1%} of the parameters are gone")
    left |= {f.target.name: _why_left(f, energy) for f in frontiers if chosen[f.target.name] is None}
    return Applied(
        candidate=replace(candidate, module=factorized, changes=(*candidate.changes, *splits)),
        details={
            "share": round(share, 6),
            "leastEnergy": round(energy, 6),
            **padding.to_details(),
            "layers": [_gain(frontier, choice) for frontier in frontiers if (choice := chosen[frontier.target.name])],
            "left": left,
            **renewed,
        },
        notes=(*_notes(settings, share), *padding.notes(), *unrenewed),
        left=tuple(leave(name, type(module.get_submodule(name)).__name__, why) for name, why in left.items()),
    )


def _padding(method: FactorizeMethod, module: nn.Module, targets: Sequence[Target], bench: Bench) -> Padding:
    """Return where padding is in what the layers read, of a method that looks at it."""
    if method is FactorizeMethod.SVD:
        return Padding()
    names = [target.name for target in targets]
    return find_padding(module, names, Batches.of(bench.need_calibration(), bench.ranks.device))


def _decomposed(
    method: FactorizeMethod, module: nn.Module, targets: Sequence[Target], bench: Bench, padding: Padding
) -> Iterator[tuple[Target, Decomposition]]:
    """Yield the decomposition of each layer; made twice rather than kept, since all of them outweigh the model."""
    device = bench.ranks.device
    if method is FactorizeMethod.SVD:
        for target in targets:
            yield target, decompose(target.layer.weight, None, device)
        return
    calibration = bench.need_calibration()
    for bundle in bundled(targets, lambda target: [target.layer.weight.shape[1]]):
        moments = measure_moments(module, bundle, Batches.of(calibration, device), padding)
        for target in bundle:
            yield target, decompose(target.layer.weight, whiten(moments.pop(target.name).to(device)), device)


def _energy(settings: Factorize, module: nn.Module, frontiers: Sequence[Frontier], others: str, bench: Bench) -> float:
    """Return the share of energy that every layer keeps; UserError, with the words on all others, where none can."""
    if not any(frontier.choices for frontier in frontiers):
        raise UserError(
            f"{bench.spec_field}: no layer of the model would get smaller and faster{others}", reason="NotFactorizable"
        )
    if settings.amount is None:
        assert settings.keep is not None  # noqa: S101 — exactly one of both is given
        return settings.keep.value
    field, before = f"{bench.spec_field}.amount", count_parameters(module)
    amount = settings.amount.value
    energy = energy_for(round(amount * before), frontiers)
    largest = sum(frontier.target.parameters - frontier.parameters_at(0) for frontier in frontiers) / before
    if amount > largest + CLOSE_ENOUGH:
        raise UserError(
            f"{field}: {settings.amount} cannot be reached; {largest:.1%} can go at the lowest ranks{others}"
        )
    return energy


def _gain(frontier: Frontier, choice: Choice) -> dict[str, Any]:
    target = frontier.target
    return {
        "layer": target.name,
        "shape": list(target.layer.weight.shape),
        "fullRanks": list(frontier.full_ranks),
        "ranks": list(choice.ranks),
        "energy": round(choice.energy, 6),
        "parameters": [target.parameters, choice.parameters],
        "macs": [target.macs, choice.macs],
    }


def _why_left(frontier: Frontier, energy: float) -> str:
    if not frontier.choices:
        return "it would not get smaller and faster at any rank"
    most = frontier.choices[-1].energy
    return f"ranks that make it smaller and faster keep {most:.2%} of its energy at most, {energy:.2%} are to be kept"


def _notes(settings: Factorize, share: float) -> tuple[str, ...]:
    if settings.amount is None or abs(share - settings.amount.value) <= CLOSE_ENOUGH:
        return ()
    return (f"{settings.amount} was ordered; {share:.1%} is as near as whole ranks come.",)
