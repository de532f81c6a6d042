"""Names and labels of everything the operator makes: deterministic, so that "already exists" means done."""

from __future__ import annotations

import hashlib

from plimsoll_api import GROUP

LABEL_JOB = f"{GROUP}/compression-job"
LABEL_RELEASE = f"{GROUP}/release"
LABEL_STAGE = f"{GROUP}/stage"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "plimsoll"
ANNOTATION_REEVALUATE = f"{GROUP}/reevaluate"

STAGE_COMPRESS = "compress"
STAGE_EVALUATE = "evaluate"
STAGE_REEVALUATE = "reevaluate"
STAGE_PRINT_REPORT = "print-report"

#: Claims are mounted below this directory of a pod; `plimsoll run --mount claim=DIR` stands in for it.
CLAIMS_DIRECTORY = "/var/plimsoll/claims"
#: The plan's file in the compress pod.
PLAN_FILE = "/var/plimsoll/plan/plan.json"
#: The environment variable of the evaluate pod that holds the EvaluationRequest.
REQUEST_VARIABLE = "PLIMSOLL_REQUEST"
TERMINATION_FILE = "/dev/termination-log"

MAX_LABEL_LENGTH = 63


def child_name(owner: str, suffix: str) -> str:
    """Return `<owner>-<suffix>`, at most 63 characters: a long owner is cut and told apart by its digest."""
    name = f"{owner}-{suffix}"
    if len(name) <= MAX_LABEL_LENGTH:
        return name
    tag = hashlib.sha256(owner.encode()).hexdigest()[:8]
    return f"{owner[: MAX_LABEL_LENGTH - len(suffix) - 10].rstrip('-.')}-{tag}-{suffix}"


def plan_name(job: str) -> str:
    """Return the name of the ConfigMap that holds the job's plan."""
    return child_name(job, "plan")


def stage_name(job: str, stage: str) -> str:
    """Return the name of the batch Job of one stage."""
    return child_name(job, stage)


def revision_name(release: str, revision: int) -> str:
    """Return the name of a ModelRevision."""
    return child_name(release, str(revision))


def model_config_name(release: str) -> str:
    """Return the name of the ConfigMap that servers read."""
    return child_name(release, "model")


def reevaluation_name(release: str, request_digest: str) -> str:
    """Return the name of the batch Job of one re-evaluation."""
    return child_name(release, f"reevaluate-{request_digest.removeprefix('sha256:')[:10]}")
