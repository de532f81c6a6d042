"""Revisions of a release: which may serve, which a rollback returns to, which number comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plimsoll_api.release import ModelReleaseStatus, ModelRevisionSpec
from plimsoll_api.status import Condition


@dataclass(frozen=True, slots=True)
class Revision:
    """One ModelRevision as it was observed."""

    name: str
    uid: str
    resource_version: str
    spec: ModelRevisionSpec
    conditions: tuple[Condition, ...] = ()

    @property
    def number(self) -> int:
        """Its number."""
        return self.spec.revision

    @property
    def digest(self) -> str:
        """The digest of what it serves."""
        return self.spec.artifact.digest


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """A release and its revisions, read anew."""

    name: str
    uid: str
    status: ModelReleaseStatus
    revisions: tuple[Revision, ...]

    def next_number(self) -> int:
        """Return the next free number: above all that exist and all that were ever given."""
        return max([self.status.latest_revision or 0, *(revision.number for revision in self.revisions)]) + 1

    def of_job(self, job_uid: str, digest: str) -> Revision | None:
        """Return the revision that this job made of this artifact."""
        made = (
            revision
            for revision in self.revisions
            if revision.spec.source.job_uid == job_uid and revision.digest == digest
        )
        return max(made, key=lambda revision: revision.number, default=None)

    def rejects(self, digest: str) -> bool:
        """Say whether this artifact was rejected."""
        return any(rejected.digest == digest for rejected in self.status.rejected)


def newest_eligible(revisions: Sequence[Revision], not_good: frozenset[str]) -> Revision | None:
    """Return the newest revision whose digest is not rejected."""
    eligible = (revision for revision in revisions if revision.digest not in not_good)
    return max(eligible, key=lambda revision: revision.number, default=None)


def last_good(revisions: Sequence[Revision], not_good: frozenset[str], current: Revision) -> Revision | None:
    """Return the revision that a rollback from `current` returns to: the newest good older one of another digest."""
    older = [
        revision for revision in revisions if revision.number < current.number and revision.digest != current.digest
    ]
    return newest_eligible(older, not_good)
