"""Wishes to measure the current revision again: which stand, which were carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plimsoll_api.model import canonical_json, digest_of
from plimsoll_api.release import ModelReleaseSpec, Reevaluation

REMEMBERED = 32
MAX_ID = 128


@dataclass(frozen=True, slots=True)
class Wish:
    """One standing wish to measure the current revision again."""

    id: str
    digest: str
    how: Reevaluation | None


def standing_wishes(spec: ModelReleaseSpec, annotation: str | None) -> list[Wish]:
    """Return the wishes that stand now: the spec's and the annotation's, each told apart by the digest of its value."""
    wishes = []
    if spec.reevaluation is not None:
        digest = digest_of(canonical_json({"spec": spec.reevaluation.to_wire()}))
        wishes.append(Wish(spec.reevaluation.id, digest, spec.reevaluation))
    if annotation:
        digest = digest_of(canonical_json({"annotation": annotation}))
        # The annotation says when; how stands in the spec, where it does.
        wishes.append(Wish(annotation[:MAX_ID], digest, spec.reevaluation))
    return wishes


def remember(done: Sequence[str], digest: str, wishes: Sequence[Wish]) -> list[str]:
    """Return the carried-out wishes with this one; the oldest are forgotten, but never one that still stands."""
    standing = {wish.digest for wish in wishes}
    remembered = [*(known for known in done if known != digest), digest]
    while len(remembered) > REMEMBERED:
        remembered.remove(next(known for known in remembered if known not in standing))
    return remembered
