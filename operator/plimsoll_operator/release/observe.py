"""All reads for one ModelRelease. Releases are few and their pointer is what people rely on: all is read anew."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from plimsoll_api import names
from plimsoll_api.release import ModelReleaseStatus, ModelRevisionSpec
from plimsoll_api.status import Condition
from plimsoll_operator.cluster.client import Cluster
from plimsoll_operator.cluster.errors import NotFoundError
from plimsoll_operator.cluster.resources import (
    BATCH_JOBS,
    CONFIG_MAPS,
    MODEL_RELEASES,
    MODEL_REVISIONS,
    PODS,
    Json,
)
from plimsoll_operator.release.revisions import ReleaseView, Revision
from plimsoll_operator.release.snapshot import ConfigView, ReleaseSnapshot
from plimsoll_operator.reports import ReportReading, read_report
from plimsoll_operator.stage import Stage, StageState, read_stage
from plimsoll_operator.views import batch_job_view, pod_view

PRINT_SUFFIX = "print"


async def read_release(cluster: Cluster, namespace: str, name: str) -> ReleaseView | None:
    """Return the release and its revisions as they are now; None when it does not exist or is being deleted."""
    try:
        body = await cluster.get(MODEL_RELEASES, namespace, name)
    except NotFoundError:
        return None
    if "deletionTimestamp" in body["metadata"]:
        return None
    uid = body["metadata"]["uid"]
    return ReleaseView(
        name=name,
        uid=uid,
        status=ModelReleaseStatus.model_validate(body.get("status") or {}),
        revisions=await read_revisions(cluster, namespace, name, uid),
    )


async def read_revisions(cluster: Cluster, namespace: str, release: str, uid: str) -> tuple[Revision, ...]:
    """Return the revisions that the release of this uid owns, by number."""
    items = await cluster.list(MODEL_REVISIONS, namespace, labelSelector=f"{names.LABEL_RELEASE}={release}")
    found = (_revision(item) for item in items if _owned(item, uid))
    return tuple(sorted((revision for revision in found if revision), key=lambda revision: revision.number))


async def observe(cluster: Cluster, body: Json, now: datetime) -> ReleaseSnapshot:
    """Return the snapshot of the release whose object was just read."""
    metadata = body["metadata"]
    namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
    status = ModelReleaseStatus.model_validate(body.get("status") or {})
    evaluate = printed = None
    report = None
    running = status.reevaluation
    if running and running.completion_time is None:
        job = names.reevaluation_name(name, running.request_digest)
        evaluate = await _read_stage(cluster, namespace, job, uid, now)
        printed = await _read_stage(cluster, namespace, names.child_name(job, PRINT_SUFFIX), uid, now)
        report = await _read_report(cluster, namespace, evaluate, printed)
    return ReleaseSnapshot(
        namespace=namespace,
        name=name,
        uid=uid,
        generation=metadata.get("generation", 1),
        deleting="deletionTimestamp" in metadata,
        reevaluate=(metadata.get("annotations") or {}).get(names.ANNOTATION_REEVALUATE),
        status=status,
        revisions=await read_revisions(cluster, namespace, name, uid),
        config=await _read_config(cluster, namespace, name, uid),
        evaluate=evaluate,
        print_report=printed,
        report=report,
    )


async def _read_config(cluster: Cluster, namespace: str, name: str, uid: str) -> ConfigView | None:
    try:
        found = await cluster.get(CONFIG_MAPS, namespace, names.model_config_name(name))
    except NotFoundError:
        return None
    return ConfigView(found["metadata"]["resourceVersion"], _owned(found, uid), found.get("data") or {})


async def _read_stage(cluster: Cluster, namespace: str, name: str, uid: str, now: datetime) -> Stage:
    try:
        job = batch_job_view(await cluster.get(BATCH_JOBS, namespace, name))
    except NotFoundError:
        return Stage(StageState.ABSENT, name)
    pods = await cluster.list(PODS, namespace, labelSelector=f"batch.kubernetes.io/controller-uid={job.uid}")
    views = sorted((pod_view(pod) for pod in pods), key=lambda pod: pod.created.timestamp() if pod.created else 0.0)
    return read_stage(name, job, views, uid, now)


async def _read_report(cluster: Cluster, namespace: str, evaluate: Stage, printed: Stage) -> ReportReading | None:
    digest = evaluate.summary.report_digest if evaluate.summary else None
    if evaluate.state is not StageState.DONE or digest is None:
        return None
    if printed.state is StageState.ABSENT:
        return await read_report(cluster, namespace, evaluate.pod or "", digest)
    if printed.state is StageState.DONE:
        return await read_report(cluster, namespace, printed.pod or "", digest)
    return None


def _owned(obj: Json, uid: str) -> bool:
    owners = obj["metadata"].get("ownerReferences") or []
    return any(owner["uid"] == uid for owner in owners)


def _revision(obj: Json) -> Revision | None:
    """Return the revision, or nothing for one that another version of the operator wrote and this cannot read."""
    try:
        spec = ModelRevisionSpec.model_validate(obj["spec"])
    except ValidationError:
        return None
    metadata = obj["metadata"]
    conditions = (obj.get("status") or {}).get("conditions") or []
    return Revision(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        spec=spec,
        conditions=tuple(Condition.model_validate(condition) for condition in conditions),
    )
