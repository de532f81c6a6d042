"""Batch Jobs and their pods: restricted, without a token, with nothing mounted but what they need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from plimsoll_api import names
from plimsoll_api.report import EXIT_INTERNAL_ERROR, EXIT_REQUEST_WRONG
from plimsoll_api.spec import Runtime
from plimsoll_operator.claims import volumes_of
from plimsoll_operator.cluster.resources import BATCH_JOBS, Json, Resource
from plimsoll_operator.views import CONTAINER

USER = 65532
GPU = "nvidia.com/gpu"
GRACE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Owner:
    """The object that owns what is built."""

    resource: Resource
    namespace: str
    name: str
    uid: str

    def reference(self) -> Json:
        """Return the owner reference: the object is collected with its owner, and does not hold it up."""
        return {
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
        }

    def metadata(self, name: str, labels: dict[str, str]) -> Json:
        """Return the metadata of an object that this one owns."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, **labels},
            "ownerReferences": [self.reference()],
        }


def batch_job(
    *,
    owner: Owner,
    name: str,
    labels: dict[str, str],
    arguments: list[str],
    runtime: Runtime,
    image: str,
    read: Iterable[str] = (),
    written: Iterable[str] = (),
    environment: dict[str, str] | None = None,
    plan_config_map: str | None = None,
    backoff_limit: int = 2,
) -> Json:
    """Return the batch Job that runs the job image once with these arguments and these URIs mounted."""
    volumes, mounts = volumes_of(read, written)
    volumes.append({"name": "tmp", "emptyDir": {}})
    mounts.append({"name": "tmp", "mountPath": "/tmp"})  # noqa: S108 - a fresh volume of the pod
    if _gpus(runtime) > 1:
        # The processes of several GPUs exchange gradients there: the 64 MiB of container runtimes are too few.
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - a fresh volume of the pod
    if plan_config_map:
        items = [{"key": "plan.json", "path": names.PLAN_FILE.rsplit("/", 1)[1]}]
        volumes.append({"name": "plan", "configMap": {"name": plan_config_map, "items": items}})
        mounts.append({"name": "plan", "mountPath": names.PLAN_FILE.rsplit("/", 1)[0], "readOnly": True})
    variables = {"HOME": "/tmp", "XDG_CACHE_HOME": "/tmp/cache", **(environment or {})}  # noqa: S108
    container: Json = {
        "name": CONTAINER,
        "image": image,
        "args": arguments,
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "resources": runtime.resources.to_wire(),
        "volumeMounts": mounts,
        # A crash leaves no summary; the end of its log is then the best there is to tell.
        "terminationMessagePath": names.TERMINATION_FILE,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            # Claims may be large: their owner is changed only where it is wrong.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
        **_placement(runtime),
    }
    metadata = owner.metadata(name, labels)
    return {
        "apiVersion": BATCH_JOBS.api_version,
        "kind": BATCH_JOBS.kind,
        "metadata": metadata,
        "spec": {
            "backoffLimit": backoff_limit,
            "podFailurePolicy": {
                "rules": [
                    # An eviction or a drained node is nobody's fault and does not count.
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": CONTAINER,
                            "operator": "In",
                            "values": [EXIT_REQUEST_WRONG, EXIT_INTERNAL_ERROR],
                        },
                    },
                ]
            },
            "template": {"metadata": {"labels": metadata["labels"]}, "spec": pod},
        },
    }


def _gpus(runtime: Runtime) -> int:
    limit = str(runtime.resources.limits.get(GPU, "0"))
    return int(limit) if limit.isdecimal() else 0


def _placement(runtime: Runtime) -> dict[str, Any]:
    wire = runtime.to_wire()
    placement = {key: wire[key] for key in ("nodeSelector", "tolerations") if wire.get(key)}
    for key in ("runtimeClassName", "priorityClassName", "serviceAccountName"):
        if wire.get(key):
            placement[key] = wire[key]
    return placement
