"""All that is decided on for one ModelRelease."""

from __future__ import annotations

from dataclasses import dataclass

from plimsoll_api.release import ModelReleaseStatus
from plimsoll_operator.actions import Refusal
from plimsoll_operator.cluster.resources import MODEL_RELEASES
from plimsoll_operator.pods import Owner
from plimsoll_operator.release.revisions import Revision
from plimsoll_operator.reports import ReportReading
from plimsoll_operator.stage import Stage


@dataclass(frozen=True, slots=True)
class ConfigView:
    """The ConfigMap that servers read, as it is."""

    resource_version: str
    owned: bool
    data: dict[str, str]


@dataclass(frozen=True, slots=True)
class ReleaseSnapshot:
    """One ModelRelease, its revisions, its ConfigMap and the re-evaluation under way, all read anew."""

    namespace: str
    name: str
    uid: str
    generation: int
    deleting: bool
    reevaluate: str | None
    """The value of the annotation that asks for a re-evaluation."""
    status: ModelReleaseStatus
    revisions: tuple[Revision, ...]
    config: ConfigView | None = None
    evaluate: Stage | None = None
    print_report: Stage | None = None
    report: ReportReading | None = None
    refused: Refusal | None = None
    """What the API server said to what was decided on this very reading."""

    @property
    def owner(self) -> Owner:
        """The release as the owner of its children."""
        return Owner(MODEL_RELEASES, self.namespace, self.name, self.uid)

    def revision(self, number: int | None) -> Revision | None:
        """Return the revision of this number, if it exists."""
        return next((revision for revision in self.revisions if revision.number == number), None)
