"""All that is decided on for one CompressionJob."""

from __future__ import annotations

from dataclasses import dataclass

from plimsoll_api.report import Progress
from plimsoll_api.spec import CompressionJobSpec
from plimsoll_api.status import CompressionJobStatus
from plimsoll_operator.actions import Refusal
from plimsoll_operator.cluster.resources import COMPRESSION_JOBS
from plimsoll_operator.pods import Owner
from plimsoll_operator.release.revisions import ReleaseView
from plimsoll_operator.reports import ReportReading
from plimsoll_operator.stage import Stage

LOOK_SECONDS = 15.0
"""A running stage is looked at again after this long: for its progress, and for what keeps it from starting."""


@dataclass(frozen=True, slots=True)
class FrozenPlan:
    """The plan as it stands in the cluster."""

    digest: str
    owner_uid: str | None
    created: str | None = None


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """One CompressionJob, its children and its release, as they were observed."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    status: CompressionJobStatus
    compress: Stage
    evaluate: Stage
    print_report: Stage
    plan: FrozenPlan | None = None
    """The plan that exists; looked for only while the status does not tell of it though it may be there."""
    report: ReportReading | None = None
    progress: Progress | None = None
    release: ReleaseView | None = None
    """The release that the spec names, read anew; None when there is none."""
    refused: Refusal | None = None
    """What the API server said to what was decided on this very reading."""
    look_again_seconds: float = LOOK_SECONDS
    """When a running stage is to be looked at again: later where very many run, since looks are rationed."""

    @property
    def owner(self) -> Owner:
        """The job as the owner of its children."""
        return Owner(COMPRESSION_JOBS, self.namespace, self.name, self.uid)


@dataclass(frozen=True, slots=True)
class Order:
    """What the job asks for, and the defaults that hold here."""

    spec: CompressionJobSpec
    default_image: str
