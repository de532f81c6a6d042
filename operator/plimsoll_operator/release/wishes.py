"""Wishes to measure the current revision again: which stand, which were carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plimsoll_api.data import DataSource, same_columns, same_text
from plimsoll_api.gates import EvaluationSettings
from plimsoll_api.images import Images
from plimsoll_api.model import canonical_json, digest_of
from plimsoll_api.release import ModelReleaseSpec, Reevaluation
from plimsoll_operator.release.revisions import Revision

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


def evaluation_settings(how: Reevaluation | None, measured: Revision) -> EvaluationSettings:
    """Return how the revision is measured again: as its job was, but for what the wish says otherwise."""
    settings = measured.spec.evaluation
    if how is None or how.accept_baseline is None:
        return settings
    return settings.model_copy(update={"accept_baseline": how.accept_baseline})


def unfit(wish: Wish, measured: Revision) -> str | None:
    """Return why the wish's data is not of the kind that the revision takes, None where it is.

    Of data of another kind the pod would drop what the model has no input for, and a wrong figure would roll back.
    """
    if wish.how is None or wish.how.data is None:
        return None
    given, own, field = wish.how.data, measured.spec.evaluation_data, "spec.reevaluation.data"
    takes = f"revision {measured.number} takes"
    if not same_text(given, own):
        return f"{field}.text: the data gives {_kind(given)}, {takes} {_kind(own)}, as its job's evaluation data does"
    if not same_columns(given, own):
        return f"{field}.inputs: [{', '.join(given.inputs)}] are given, {takes} [{', '.join(own.inputs)}] in this order"
    if given.classes and own.classes and given.classes != own.classes:
        return f"{field}.classes: {takes} those of its job's evaluation data, in their order"
    if not (given.is_file or own.is_file) and (given.images or Images()) != (own.images or Images()):
        return (
            f"{field}.images: {takes} images as its job read them: {(own.images or Images()).canonical_json().decode()}"
        )
    return None


def _kind(data: DataSource) -> str:
    if data.text is None:
        return "numbers (inputs, no text)"
    texts = "single texts (text: one column" if len(data.text) == 1 else "pairs of texts (text: two columns"
    return f"{texts}, maxLength: {data.tokens})"


def remember(done: Sequence[str], digest: str, wishes: Sequence[Wish]) -> list[str]:
    """Return the carried-out wishes with this one; the oldest are forgotten, but never one that still stands."""
    standing = {wish.digest for wish in wishes}
    remembered = [*(known for known in done if known != digest), digest]
    while len(remembered) > REMEMBERED:
        remembered.remove(next(known for known in remembered if known not in standing))
    return remembered
