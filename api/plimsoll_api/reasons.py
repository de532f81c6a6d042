"""Condition types and reasons, and the reasons of Events: every word that programs may match on."""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """Types of conditions; the first three as kstatus reads them."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    GATE_PASSED = "GatePassed"
    RELEASED = "Released"
    ROLLED_BACK = "RolledBack"
    GOOD = "Good"


class Reason(StrEnum):
    """Reasons of conditions and Events; the value's comment in docs/reference/reasons.md comes from `meaning`."""

    PENDING = "Pending"
    COMPRESSING = "Compressing"
    EVALUATING = "Evaluating"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    GATE_PASSED = "GatePassed"
    GATE_FAILED = "GateFailed"
    GATE_INCONCLUSIVE = "GateInconclusive"
    RELEASED = "Released"
    RELEASE_NOT_FOUND = "ReleaseNotFound"
    NO_RELEASE = "NoRelease"
    DIGEST_REJECTED = "DigestRejected"
    REQUEST_WRONG = "RequestWrong"
    INTERNAL_ERROR = "InternalError"
    POD_CANNOT_START = "PodCannotStart"
    NOT_ALLOWED = "NotAllowed"
    STAGE_FAILED = "StageFailed"
    REPORT_UNREADABLE = "ReportUnreadable"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    NO_REVISION = "NoRevision"
    SERVING = "Serving"
    PINNED = "Pinned"
    PINNED_REVISION_NOT_FOUND = "PinnedRevisionNotFound"
    REEVALUATING = "Reevaluating"
    REEVALUATION_PASSED = "ReevaluationPassed"
    REEVALUATION_FAILED = "ReevaluationFailed"
    REEVALUATION_INCONCLUSIVE = "ReevaluationInconclusive"
    REEVALUATION_ERROR = "ReevaluationError"
    ROLLED_BACK = "RolledBack"
    NOTHING_TO_ROLL_BACK_TO = "NothingToRollBackTo"
    FALLBACK_DAMAGED = "FallbackDamaged"
    NEVER_ROLLED_BACK = "NeverRolledBack"
    NAME_TAKEN = "NameTaken"


#: What each reason means, for people; the reference page is generated from it and a test keeps it complete.
MEANINGS: dict[Reason, str] = {
    Reason.PENDING: "The job was seen; nothing runs yet.",
    Reason.COMPRESSING: "The compress pod runs.",
    Reason.EVALUATING: "The evaluate pod runs.",
    Reason.SUSPENDED: "spec.suspend is true; finished stages are kept.",
    Reason.RESUMED: "spec.suspend is false again.",
    Reason.GATE_PASSED: "Every check passed.",
    Reason.GATE_FAILED: "A check failed; nothing was released.",
    Reason.GATE_INCONCLUSIVE: "A check could not be decided; nothing was released.",
    Reason.RELEASED: "The candidate became a revision of the release.",
    Reason.RELEASE_NOT_FOUND: "The named ModelRelease does not exist yet; the job waits for it.",
    Reason.NO_RELEASE: "The job names no release; the artifact lies in the store.",
    Reason.DIGEST_REJECTED: "The release rejected this very artifact before; pin its revision to serve it anyway.",
    Reason.REQUEST_WRONG: "The request cannot be carried out as written; the message names the field.",
    Reason.INTERNAL_ERROR: "A fault of Plimsoll ended a stage, which no other try mends; report it with the pod's log.",
    Reason.POD_CANNOT_START: "A pod of the job cannot start; the message says what the kubelet or scheduler says.",
    Reason.NOT_ALLOWED: "The API server does not let the operator make what the job needs; the message says why.",
    Reason.STAGE_FAILED: "A stage failed more often than backoffLimit allows.",
    Reason.REPORT_UNREADABLE: "The report could not be read, or its digest is wrong.",
    Reason.DEADLINE_EXCEEDED: "The job ran longer than activeDeadlineSeconds.",
    Reason.NO_REVISION: "The release has no revision yet.",
    Reason.SERVING: "The release points at its newest good revision.",
    Reason.PINNED: "The release points at spec.pinnedRevision.",
    Reason.PINNED_REVISION_NOT_FOUND: "spec.pinnedRevision does not exist; the pointer stays.",
    Reason.REEVALUATING: "The current revision is being measured again.",
    Reason.REEVALUATION_PASSED: "The current revision still keeps its limits.",
    Reason.REEVALUATION_FAILED: "The current revision no longer keeps its limits.",
    Reason.REEVALUATION_INCONCLUSIVE: "The re-evaluation could not decide; the pointer stays.",
    Reason.REEVALUATION_ERROR: "The re-evaluation could not be carried out; the pointer stays.",
    Reason.ROLLED_BACK: "The pointer went back to the last good revision.",
    Reason.NOTHING_TO_ROLL_BACK_TO: "The current revision failed and there is no other good one; the pointer stays.",
    Reason.FALLBACK_DAMAGED: "The last good revision's bytes are not whole; the pointer stays.",
    Reason.NEVER_ROLLED_BACK: "The pointer never went back by itself.",
    Reason.NAME_TAKEN: "An object of the name that the operator needs belongs to someone else; it is left alone.",
}
