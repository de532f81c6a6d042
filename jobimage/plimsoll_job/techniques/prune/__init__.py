"""Pruning: which channels matter least, which go together, and cutting them out; or setting single weights to zero."""

from __future__ import annotations

from plimsoll_api.spec import Granularity, Prune
from plimsoll_job.techniques.prune.structured import prune_structured
from plimsoll_job.techniques.prune.unstructured import prune_unstructured
from plimsoll_job.techniques.shape import Applied, Bench, Candidate


def apply(settings: Prune, candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate without its least important part."""
    if settings.granularity is Granularity.STRUCTURED:
        return prune_structured(settings, candidate, bench)
    return prune_unstructured(settings, candidate, bench)
