"""What was wanted beside the peers, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.engine.contenders import PLAIN
from bench.engine.point import Mean, front, plain_of

HEADLINE_PARAMETERS, HEADLINE_POINTS, HEADLINE_TIMES = 0.72, 0.62, 12.0
KEPT_TIMES, COST_TIMES = 2.0, 1.15
#: What is pruned without training: at the lower amount much may be left to either criterion.
UNTRAINED = ("60%", "80%")
#: Of ten classes, guessing gets one in ten.
CHANCE = 0.1
PRUNED, WHOLE = "activation 73%, distilled", "activation 73%, distilled, int8"


@dataclass(frozen=True)
class Result:
    """One goal on one model."""

    model: str
    goal: str
    met: bool
    measured: str


def results(all_means: Sequence[Mean]) -> list[Result]:
    """Return each goal on each model that has what it takes to tell."""
    found = []
    for model in dict.fromkeys(one.model for one in all_means):
        here = [one for one in all_means if one.model == model]
        ours = {one.variant: one for one in here if one.ours}
        goals = [unbeaten(here), headline(ours), small(ours), int8(ours), cost(ours, here)]
        goals += [redundancy(ours, amount) for amount in UNTRAINED]
        found += [Result(model, *goal) for goal in goals if goal is not None]
    return found


Goal = tuple[str, bool, str] | None


def unbeaten(here: Sequence[Mean]) -> Goal:
    """No peer's point is smaller, faster at batch 1 and better than a point of our front."""
    ours, peers = front([one for one in here if one.ours]), [one for one in here if not one.ours and one.peer != PLAIN]
    if not (ours and peers):
        return None
    beaten = [f"{peer.named} beats {one.variant}" for peer in peers for one in ours if peer.beats(one)]
    told = "; ".join(beaten) or f"none of {len(peers)} beats one of our {len(ours)}"
    return "no peer's point is smaller, faster and better than one of our front", not beaten, told


def headline(ours: dict[str, Mean]) -> Goal:
    """Activation pruning takes the headline's share of the parameters at its loss."""
    pruned = ours.get(PRUNED)
    if pruned is None or pruned.parameters_gone is None:
        return None
    goal = f"activation pruning takes {HEADLINE_PARAMETERS:.0%} of the parameters for {HEADLINE_POINTS} points at most"
    met = pruned.parameters_gone >= HEADLINE_PARAMETERS and -pruned.change_points <= HEADLINE_POINTS
    return goal, met, f"{pruned.parameters_gone:.1%} gone, {pruned.change_points:+.2f} points"


def small(ours: dict[str, Mean]) -> Goal:
    """With int8 it is so many times smaller."""
    whole = ours.get(WHOLE)
    if whole is None:
        return None
    times = 1 / whole.size
    return f"with int8 at least {HEADLINE_TIMES:.0f} times smaller", times >= HEADLINE_TIMES, f"{times:.1f} times"


def redundancy(ours: dict[str, Mean], amount: str) -> Goal:
    """Redundancy pruning without training keeps more above chance than magnitude pruning of the same amount."""
    kept = {name: ours.get(f"{name} {amount}, no training") for name in ("Redundancy", "Magnitude")}
    ahead, behind = kept["Redundancy"], kept["Magnitude"]
    if ahead is None or behind is None:
        return None
    goal = (
        f"redundancy pruning of {amount} without training keeps {KEPT_TIMES:g} times what magnitude pruning keeps "
        "above chance"
    )
    met = ahead.quality - CHANCE >= KEPT_TIMES * (behind.quality - CHANCE)
    return goal, met, f"{ahead.quality:.1%} against {behind.quality:.1%}"


def int8(ours: dict[str, Mean]) -> Goal:
    """int8 is not slower than float in the same runtime."""
    whole = ours.get("int8")
    if whole is None:
        return None
    told = f"{whole.latency_1:.2f} of the float's p50 at batch 1, {whole.latency_32:.2f} at 32"
    return "int8 is not slower than float", max(whole.latency_1, whole.latency_32) <= 1, told


def cost(ours: dict[str, Mean], here: Sequence[Mean]) -> Goal:
    """The whole compression costs little more of the processor than a plain fine-tuning of the same epochs.

    It is asked of one variant; what else of ours costs more than that is told beside it. Time of the processor, since
    it tells the same on a machine that is busy with other things; the wall's is told too.
    """
    whole, plain = ours.get(WHOLE), plain_of(here, here[0].model)
    if whole is None or plain is None or not plain.cpu_seconds:
        return None
    times = whole.cpu_seconds / plain.cpu_seconds
    goal = f"the whole compression ({WHOLE}) costs at most {COST_TIMES} times the plain fine-tuning of the same epochs"
    told = (
        f"{times:.2f} times ({whole.cpu_seconds:.1f} s of CPU, {plain.cpu_seconds:.1f} s), "
        f"{whole.seconds / plain.seconds:.2f} times by the wall's clock"
    )
    dearer = {name: one.cpu_seconds / plain.cpu_seconds for name, one in ours.items()}
    above = [f"{name}: {share:.2f} times" for name, share in dearer.items() if share > COST_TIMES and name != WHOLE]
    return goal, times <= COST_TIMES, "; ".join([told, *(f"not asked of, and above, {one}" for one in above)])
