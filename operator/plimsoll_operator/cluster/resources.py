"""The kinds of objects that the operator reads or writes, and where the API server has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from plimsoll_api import GROUP, VERSION

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """One namespaced kind."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """As manifests write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL's path of the collection or of one object."""
        parts = ["", "apis", self.group, self.version] if self.group else ["", "api", self.version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/".join(parts)


COMPRESSION_JOBS = Resource(GROUP, VERSION, "compressionjobs", "CompressionJob")
MODEL_RELEASES = Resource(GROUP, VERSION, "modelreleases", "ModelRelease")
MODEL_REVISIONS = Resource(GROUP, VERSION, "modelrevisions", "ModelRevision")
BATCH_JOBS = Resource("batch", "v1", "jobs", "Job")
PODS = Resource("", "v1", "pods", "Pod")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
EVENTS = Resource("", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")

OWN_KINDS = (COMPRESSION_JOBS, MODEL_RELEASES, MODEL_REVISIONS)


def version_number(obj: Json) -> int:
    """Return the object's resourceVersion as the number by which newer is told from older."""
    version = obj.get("metadata", {}).get("resourceVersion", "")
    return int(version) if version.isdigit() else 0
