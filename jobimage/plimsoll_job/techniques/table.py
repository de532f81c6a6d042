"""The one table of techniques; a test compares it with the members of the API's Step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plimsoll_api.spec import Step
from plimsoll_job.techniques import distill, factorize, prune, quantize
from plimsoll_job.techniques.prune.iterations import recover_beside
from plimsoll_job.techniques.shape import Applied, Bench, Candidate

Technique = Callable[[Any, Candidate, Bench], Applied]

TECHNIQUES: dict[str, Technique] = {
    "prune": prune.apply,
    "factorize": factorize.apply,
    "distill": distill.apply,
    "quantize": quantize.apply,
}

#: Those that make weights fewer or smaller: what they leave as it was is told.
REDUCING = frozenset({"prune", "factorize", "quantize"})

#: What the other processes under torchrun do of a step that they are told of: of a prune step, what it trains.
BESIDE: dict[str, Technique] = {**TECHNIQUES, "prune": recover_beside}


def technique_of(step: Step) -> str:
    """Return the name of the one technique that the step configures."""
    return next(name for name in TECHNIQUES if getattr(step, name) is not None)
