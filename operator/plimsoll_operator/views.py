"""What the operator keeps in memory of batch Jobs and pods: the few fields it decides on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from plimsoll_api import names
from plimsoll_operator.clock import parse_time
from plimsoll_operator.cluster.resources import Json

CONTAINER = "job"
JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"


@dataclass(frozen=True, slots=True)
class BatchJobView:
    """One batch Job."""

    namespace: str
    name: str
    uid: str
    owner_uid: str | None
    compression_job: str | None
    release: str | None
    suspended: bool
    deleting: bool
    complete: bool
    failure: tuple[str, str] | None
    """Reason and message of its Failed condition."""
    created: datetime | None
    started: datetime | None
    finished: datetime | None


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod of a batch Job."""

    namespace: str
    name: str
    job_uid: str
    phase: str
    created: datetime | None
    waiting: tuple[str, str] | None
    """Why it does not start: reason and message of the container, or of the condition PodScheduled."""
    exit_code: int | None
    termination_message: str


def batch_job_view(obj: Json) -> BatchJobView:
    """Return what is kept of a batch Job."""
    metadata, spec, status = obj["metadata"], obj["spec"], obj.get("status", {})
    conditions = {
        condition["type"]: condition
        for condition in status.get("conditions") or []
        if condition.get("status") == "True"
    }
    failed = conditions.get("Failed")
    ended = conditions.get("Complete") or failed
    labels = metadata.get("labels") or {}
    return BatchJobView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid=_controller_uid(metadata),
        compression_job=labels.get(names.LABEL_JOB),
        release=labels.get(names.LABEL_RELEASE),
        suspended=bool(spec.get("suspend")),
        deleting="deletionTimestamp" in metadata,
        complete="Complete" in conditions,
        failure=(failed.get("reason") or "Failed", failed.get("message") or "") if failed else None,
        created=parse_time(metadata.get("creationTimestamp")),
        started=parse_time(status.get("startTime")),
        finished=parse_time(status.get("completionTime") or (ended or {}).get("lastTransitionTime")),
    )


def pod_view(obj: Json) -> PodView:
    """Return what is kept of a pod."""
    metadata, status = obj["metadata"], obj.get("status", {})
    state: dict[str, Any] = next(
        (container.get("state") or {} for container in status.get("containerStatuses") or []), {}
    )
    terminated = state.get("terminated") or {}
    conditions = status.get("conditions") or []
    return PodView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        job_uid=(metadata.get("labels") or {}).get(JOB_UID_LABEL) or _controller_uid(metadata) or "",
        phase=status.get("phase") or "Pending",
        created=parse_time(metadata.get("creationTimestamp")),
        waiting=_waiting(state, conditions, obj.get("spec", {})),
        exit_code=terminated.get("exitCode"),
        termination_message=terminated.get("message") or "",
    )


def _waiting(state: dict[str, Any], conditions: list[dict[str, Any]], spec: Json) -> tuple[str, str] | None:
    waiting = state.get("waiting") or {}
    if waiting.get("reason") and waiting["reason"] not in ("ContainerCreating", "PodInitializing"):
        return waiting["reason"], _with_paths(waiting.get("message") or "", spec)
    for condition in conditions:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return condition.get("reason") or "Unschedulable", condition.get("message") or ""
    return None


def _with_paths(message: str, spec: Json) -> str:
    """Add the paths that a kubelet cannot mount: it names only the volume, by a name that nobody wrote."""
    if "subPath" not in message:
        return message
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in spec.get("volumes") or []
        if "persistentVolumeClaim" in volume
    }
    paths = sorted(
        f"pvc://{claims[mount['name']]}/{mount['subPath']}"
        for container in spec.get("containers") or []
        for mount in container.get("volumeMounts") or []
        if "subPath" in mount and mount["name"] in claims and f'"{mount["name"]}"' in message
    )
    return f"{message}; of these, one is not there: {', '.join(paths)}" if paths else message


def _controller_uid(metadata: dict[str, Any]) -> str | None:
    owners = metadata.get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)
