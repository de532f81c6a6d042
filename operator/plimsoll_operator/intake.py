"""What watches tell, into the mirror and the queue."""

from __future__ import annotations

from collections import Counter
from operator import attrgetter

from plimsoll_api import names
from plimsoll_operator.cluster.resources import (
    BATCH_JOBS,
    COMPRESSION_JOBS,
    MODEL_RELEASES,
    MODEL_REVISIONS,
    Json,
    Resource,
)
from plimsoll_operator.mirror import Mirror, key_of
from plimsoll_operator.queue import WorkQueue
from plimsoll_operator.views import BatchJobView

#: Batch Jobs and pods of ours: watches ask for these only.
SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_STAGE}"
#: The fields of a batch Job that decisions rest on; a new owner comes with a new uid.
_NEWS = attrgetter("uid", "suspended", "deleting", "complete", "failure")


class Intake:
    """Keeps the mirror and adds to the queue whatever may have to be done about it."""

    def __init__(self, mirror: Mirror, queue: WorkQueue) -> None:
        self._mirror = mirror
        self._queue = queue
        self.heard: Counter[str] = Counter()
        """How often the watch of each kind told of anything."""

    def event(self, resource: Resource, event: str | None, obj: Json) -> None:
        """Take in an event about an object of ours."""
        if event == "DELETED":
            metadata = obj["metadata"]
            self.own_gone(resource, metadata["namespace"], metadata["name"], metadata["uid"])
        else:
            self.own(resource, obj)

    def own(self, resource: Resource, obj: Json) -> None:
        """Take in an object of ours that is there or changed."""
        self.heard[resource.kind] += 1
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        known = self._mirror.get(resource, namespace, name)
        changed = self._mirror.put(resource, obj)
        if resource is MODEL_REVISIONS:
            if known is None:
                self._add(MODEL_RELEASES, namespace, obj["spec"]["release"])
        elif changed:
            self._add(resource, namespace, name)
            if resource is MODEL_RELEASES and known is None:
                self._wake_waiting(namespace, name)

    def own_gone(self, resource: Resource, namespace: str, name: str, uid: str | None) -> None:
        """Take in that an object of ours is gone."""
        self.heard[resource.kind] += 1
        gone = self._mirror.remove(resource, namespace, name, uid)
        if gone is None:
            return
        self._queue.forget(key_of(gone))
        if resource is MODEL_REVISIONS:
            self._add(MODEL_RELEASES, namespace, gone["spec"]["release"])

    def batch_job(self, obj: Json) -> None:
        """Take in a batch Job that is there or changed; its counts of pods alone are no news."""
        self.heard[BATCH_JOBS.kind] += 1
        before = self._mirror.batch_job(obj["metadata"]["namespace"], obj["metadata"]["name"])
        view = self._mirror.put_batch_job(obj)
        if before is None or _NEWS(before) != _NEWS(view):
            self._add_owner(view)

    def batch_job_gone(self, namespace: str, name: str, uid: str | None) -> None:
        """Take in that a batch Job is gone."""
        self.heard[BATCH_JOBS.kind] += 1
        view = self._mirror.remove_batch_job(namespace, name, uid)
        if view:
            self._add_owner(view)

    def pod(self, obj: Json) -> None:
        """Take in a pod that is there or changed. News is what keeps it from starting: its batch Job tells its end."""
        before = self._mirror.pods.get((obj["metadata"]["namespace"], obj["metadata"]["name"]))
        view = self._mirror.put_pod(obj)
        if view.waiting != (before.waiting if before else None):
            labels = obj["metadata"].get("labels") or {}
            self._add_labelled(view.namespace, labels.get(names.LABEL_JOB), labels.get(names.LABEL_RELEASE))

    def pod_gone(self, namespace: str, name: str, uid: str | None) -> None:
        """Take in that a pod is gone; its batch Job tells what that means."""
        self._mirror.remove_pod(namespace, name, uid)

    def _add_owner(self, view: BatchJobView) -> None:
        self._add_labelled(view.namespace, view.compression_job, view.release)

    def _add_labelled(self, namespace: str, job: str | None, release: str | None) -> None:
        if job:
            self._add(COMPRESSION_JOBS, namespace, job)
        if release:
            self._add(MODEL_RELEASES, namespace, release)

    def _add(self, resource: Resource, namespace: str, name: str) -> None:
        known = self._mirror.get(resource, namespace, name)
        if known is not None:
            self._queue.add(key_of(known))

    def _wake_waiting(self, namespace: str, release: str) -> None:
        """Add the jobs that wait for this release to appear."""
        for job in self._mirror.all(COMPRESSION_JOBS, namespace):
            waits = (job.get("status") or {}).get("phase") == "Releasing"
            if waits and (job["spec"].get("releaseRef") or {}).get("name") == release:
                self._queue.add(key_of(job))
