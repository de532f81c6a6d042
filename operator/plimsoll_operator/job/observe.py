"""All reads for one CompressionJob.

The watches' mirror is read first, since it costs the API server nothing. What a wrong decision could rest on is read
anew: the release and its revisions before a number is taken, and everything once the mirror was found to lag.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from plimsoll_api import names
from plimsoll_api.model import digest_of
from plimsoll_api.report import Progress
from plimsoll_api.spec import CompressionJobSpec
from plimsoll_api.status import CompressionJobStatus
from plimsoll_api.verdict import Verdict
from plimsoll_operator.cluster.client import Cluster
from plimsoll_operator.cluster.errors import NotFoundError
from plimsoll_operator.cluster.resources import BATCH_JOBS, COMPRESSION_JOBS, CONFIG_MAPS, EVENTS, PODS, Json
from plimsoll_operator.job.build import PLAN_KEY
from plimsoll_operator.job.decide import is_over
from plimsoll_operator.job.snapshot import LOOK_SECONDS, FrozenPlan, JobSnapshot
from plimsoll_operator.mirror import Key, Mirror
from plimsoll_operator.release.observe import read_release
from plimsoll_operator.reports import ReportReading, read_progress, read_report
from plimsoll_operator.stage import Problem, Stage, StageState, read_stage

#: Logs and Events of running stages are read at most this often, for a job and in all.
LEAST_SECONDS = LOOK_SECONDS - 1
LOOKS_PER_SECOND = 2.0
NO_POD_AFTER = timedelta(seconds=10)


@dataclass
class Looks:
    """When each job was last looked at closely: how often the API server is asked for logs is bounded."""

    last: dict[str, float] = field(default_factory=dict)
    _next_free: float = 0.0

    def due(self, uid: str, ran_seconds: float) -> bool:
        """Say whether it is this job's turn, whose stage has run this long, and count it when it is."""
        now = time.monotonic()
        last = self.last.setdefault(uid, now - ran_seconds)
        if now - last < LEAST_SECONDS or now < self._next_free:
            return False
        self.last[uid] = now
        self._next_free = now + 1 / LOOKS_PER_SECOND
        return True

    def forget(self, uid: str) -> None:
        """Forget a job that runs no more."""
        self.last.pop(uid, None)

    @property
    def interval_seconds(self) -> float:
        """How long a job waits for its next turn when all that run want theirs."""
        return max(LOOK_SECONDS, len(self.last) / LOOKS_PER_SECOND)


async def find(cluster: Cluster, mirror: Mirror, key: Key, *, fresh: bool) -> Json | None:
    """Return the CompressionJob of the key, if it is still there."""
    body = mirror.get(COMPRESSION_JOBS, key.namespace, key.name)
    if fresh:
        try:
            body = await cluster.get(COMPRESSION_JOBS, key.namespace, key.name)
            mirror.put(COMPRESSION_JOBS, body)
        except NotFoundError:
            return None
    return body if body and body["metadata"]["uid"] == key.uid else None


def known_snapshot(body: Json, mirror: Mirror, now: datetime) -> JobSnapshot:
    """Return what the mirror alone knows of the job."""
    metadata = body["metadata"]
    return JobSnapshot(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        resource_version=metadata["resourceVersion"],
        deleting="deletionTimestamp" in metadata,
        status=CompressionJobStatus.model_validate(body.get("status") or {}),
        compress=_known_stage(body, mirror, names.STAGE_COMPRESS, now),
        evaluate=_known_stage(body, mirror, names.STAGE_EVALUATE, now),
        print_report=_known_stage(body, mirror, names.STAGE_PRINT_REPORT, now),
    )


async def observe(
    cluster: Cluster, mirror: Mirror, looks: Looks, body: Json, spec: CompressionJobSpec, *, now: datetime, fresh: bool
) -> JobSnapshot:
    """Return the snapshot of the CompressionJob; `fresh` says that the mirror is not to be believed."""
    snapshot = known_snapshot(body, mirror, now)
    if is_over(snapshot.status):
        return snapshot
    snapshot = replace(snapshot, look_again_seconds=looks.interval_seconds)
    reader = _Reader(cluster, mirror, snapshot.namespace, snapshot.name)
    stages = (snapshot.compress, snapshot.evaluate, snapshot.print_report)
    if fresh:
        for stage in stages:
            await reader.refresh_batch_job(stage.name)
        again = snapshot.look_again_seconds
        snapshot = replace(known_snapshot(body, mirror, now), look_again_seconds=again)
    untold = snapshot.status.plan_digest is None
    if untold and (fresh or snapshot.compress.state is not StageState.ABSENT):
        snapshot = replace(snapshot, plan=await reader.plan())
    if any(stage.state is StageState.LOST for stage in (snapshot.compress, snapshot.evaluate, snapshot.print_report)):
        await reader.refresh_pods()
        seen = known_snapshot(body, mirror, now)
        snapshot = replace(snapshot, compress=seen.compress, evaluate=seen.evaluate, print_report=seen.print_report)
    verdict = snapshot.status.verdict
    if verdict is None and snapshot.evaluate.state is StageState.DONE:
        snapshot = replace(snapshot, report=await reader.report(snapshot.evaluate, snapshot.print_report))
    if spec.release_ref and (verdict is Verdict.PASS or snapshot.report is not None):
        snapshot = replace(snapshot, release=await read_release(cluster, snapshot.namespace, spec.release_ref.name))
    return await _look(reader, mirror, looks, snapshot, now)


async def _look(reader: _Reader, mirror: Mirror, looks: Looks, snapshot: JobSnapshot, now: datetime) -> JobSnapshot:
    """Add the progress of the pod that runs, or what keeps a batch Job from having a pod at all."""
    stages = {member: getattr(snapshot, member) for member in ("compress", "evaluate", "print_report")}
    if not any(stage.state is StageState.ACTIVE for stage in stages.values()):
        looks.forget(snapshot.uid)
    for member, stage in stages.items():
        if stage.state is not StageState.ACTIVE or stage.suspended:
            continue
        ran = now - (stage.started or now)
        if not looks.due(snapshot.uid, ran.total_seconds()):
            continue
        if stage.pod:
            return replace(snapshot, progress=await reader.progress(stage.pod))
        if stage.problem is None and not mirror.pods_of(stage.uid) and ran > NO_POD_AFTER:
            blocked = replace(stage, problem=await reader.refusal(stage))
            return replace(snapshot, **{member: blocked})
    return snapshot


def _known_stage(body: Json, mirror: Mirror, stage: str, now: datetime) -> Stage:
    metadata = body["metadata"]
    name = names.stage_name(metadata["name"], stage)
    job = mirror.batch_job(metadata["namespace"], name)
    pods = mirror.pods_of(job.uid) if job else ()
    return read_stage(name, job, pods, metadata["uid"], now)


class _Reader:
    """Reads anew what belongs to one CompressionJob."""

    def __init__(self, cluster: Cluster, mirror: Mirror, namespace: str, name: str) -> None:
        self._cluster, self._mirror = cluster, mirror
        self._namespace, self._name = namespace, name

    async def refresh_batch_job(self, name: str) -> None:
        """Bring one batch Job of the mirror up to date."""
        try:
            self._mirror.put_batch_job(await self._cluster.get(BATCH_JOBS, self._namespace, name))
        except NotFoundError:
            self._mirror.remove_batch_job(self._namespace, name)

    async def refresh_pods(self) -> None:
        """Bring the job's pods in the mirror up to date: a batch Job may be seen to end before its pod is."""
        selector = f"{names.LABEL_JOB}={self._name}"
        for pod in await self._cluster.list(PODS, self._namespace, labelSelector=selector):
            self._mirror.put_pod(pod)

    async def plan(self) -> FrozenPlan | None:
        """Return the plan that exists."""
        try:
            found = await self._cluster.get(CONFIG_MAPS, self._namespace, names.plan_name(self._name))
        except NotFoundError:
            return None
        owners = found["metadata"].get("ownerReferences") or []
        text = (found.get("data") or {}).get(PLAN_KEY, "")
        return FrozenPlan(
            digest=digest_of(text.encode()),
            owner_uid=next((owner["uid"] for owner in owners if owner.get("controller")), None),
            created=found["metadata"].get("creationTimestamp"),
        )

    async def report(self, evaluate: Stage, printed: Stage) -> ReportReading | None:
        """Return the report from the evaluate pod's log, or from that of the pod that prints it again."""
        digest = evaluate.summary.report_digest if evaluate.summary else None
        source = {StageState.ABSENT: evaluate.pod, StageState.DONE: printed.pod}.get(printed.state)
        if digest is None or source is None:
            return None
        return await read_report(self._cluster, self._namespace, source, digest)

    async def progress(self, pod: str) -> Progress | None:
        """Return the progress that the pod told last."""
        return await read_progress(self._cluster, self._namespace, pod)

    async def refusal(self, stage: Stage) -> Problem | None:
        """Return why no pod could be made: a quota or an admission rule, which only Events tell."""
        selector = f"involvedObject.uid={stage.uid},type=Warning"
        events = await self._cluster.list(EVENTS, self._namespace, fieldSelector=selector)
        if not events:
            return None
        newest = max(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return Problem(newest.get("reason") or "FailedCreate", newest.get("message") or "")
