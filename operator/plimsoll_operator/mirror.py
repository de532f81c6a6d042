"""What the watches have told so far: own objects as JSON, batch Jobs and pods as views.

It may lag behind the cluster. Decisions that must not rest on an old reading read anew (see observe).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from plimsoll_operator.cluster.resources import OWN_KINDS, Json, Resource, version_number
from plimsoll_operator.views import BatchJobView, PodView, batch_job_view, pod_view

ObjectName = tuple[str, str]
_BULKY_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Key:
    """One object of ours: the unit of work of the queue."""

    kind: str
    namespace: str
    name: str
    uid: str


def key_of(obj: Json) -> Key:
    """Return the key of an object of ours."""
    metadata = obj["metadata"]
    return Key(obj["kind"], metadata["namespace"], metadata["name"], metadata["uid"])


@dataclass
class Mirror:
    """All that the watches told."""

    own: dict[str, dict[ObjectName, Json]] = field(
        default_factory=lambda: {resource.kind: {} for resource in OWN_KINDS}
    )
    batch_jobs: dict[ObjectName, BatchJobView] = field(default_factory=dict)
    pods: dict[ObjectName, PodView] = field(default_factory=dict)
    versions: dict[ObjectName, int] = field(default_factory=dict)
    """The resource versions of the batch Jobs."""
    _pods_of: dict[str, dict[str, PodView]] = field(default_factory=lambda: defaultdict(dict))

    def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """Return the object of ours, if it is known."""
        return self.own[resource.kind].get((namespace, name))

    def all(self, resource: Resource, namespace: str | None = None) -> Iterator[Json]:
        """Yield the known objects of one of our kinds."""
        for (home, _), obj in self.own[resource.kind].items():
            if namespace in (None, home):
                yield obj

    def version_of(self, resource: Resource, namespace: str, name: str) -> int | None:
        """Return the newest resource version that is known of an object of ours or a batch Job."""
        if resource.kind not in self.own:
            return self.versions.get((namespace, name))
        kept = self.get(resource, namespace, name)
        return version_number(kept) if kept else None

    def put(self, resource: Resource, obj: Json) -> bool:
        """Keep the object unless a newer reading of it is kept already; say whether it was kept."""
        metadata = obj["metadata"]
        name = (metadata["namespace"], metadata["name"])
        kept = self.own[resource.kind].get(name)
        if kept and kept["metadata"]["uid"] == metadata["uid"] and version_number(kept) >= version_number(obj):
            return False
        self.own[resource.kind][name] = _slim(obj, resource)
        return True

    def remove(self, resource: Resource, namespace: str, name: str, uid: str | None = None) -> Json | None:
        """Forget the object (of this uid, lest another of that name took its place) and return what was known of it."""
        kept = self.own[resource.kind].get((namespace, name))
        if kept is None or uid not in (None, kept["metadata"]["uid"]):
            return None
        return self.own[resource.kind].pop((namespace, name))

    def put_batch_job(self, obj: Json) -> BatchJobView:
        """Keep a batch Job unless a newer reading of it is kept already."""
        view = batch_job_view(obj)
        name = (view.namespace, view.name)
        kept, version = self.batch_jobs.get(name), version_number(obj)
        if kept is None or kept.uid != view.uid or self.versions.get(name, 0) <= version:
            self.batch_jobs[name], self.versions[name] = view, version
        return self.batch_jobs[name]

    def remove_batch_job(self, namespace: str, name: str, uid: str | None = None) -> BatchJobView | None:
        """Forget the batch Job (of this uid) and return what was known of it."""
        kept = self.batch_jobs.get((namespace, name))
        if kept is None or uid not in (None, kept.uid):
            return None
        self.versions.pop((namespace, name), None)
        return self.batch_jobs.pop((namespace, name))

    def put_pod(self, obj: Json) -> PodView:
        """Keep a pod."""
        view = pod_view(obj)
        self.pods[(view.namespace, view.name)] = view
        self._pods_of[view.job_uid][view.name] = view
        return view

    def remove_pod(self, namespace: str, name: str, uid: str | None = None) -> PodView | None:
        """Forget a pod and return what was known of it."""
        view = self.pods.pop((namespace, name), None)
        if view is not None:
            siblings = self._pods_of[view.job_uid]
            siblings.pop(name, None)
            if not siblings:
                del self._pods_of[view.job_uid]
        return view

    def pods_of(self, job_uid: str) -> tuple[PodView, ...]:
        """Return the known pods of a batch Job, oldest first."""
        pods = self._pods_of.get(job_uid, {}).values()
        return tuple(sorted(pods, key=lambda pod: (pod.created.timestamp() if pod.created else 0.0, pod.name)))

    def batch_job(self, namespace: str, name: str) -> BatchJobView | None:
        """Return the batch Job, if it is known."""
        return self.batch_jobs.get((namespace, name))


def _slim(obj: Json, resource: Resource) -> Json:
    """Return the object without what only other programs read."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations and _BULKY_ANNOTATION in annotations:
        metadata["annotations"] = {key: text for key, text in annotations.items() if key != _BULKY_ANNOTATION}
    return {**obj, "kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
