"""The peer: the same children and statuses from the obvious kopf operator, written as its tutorial teaches.

One ConfigMap, two batch Jobs and three status patches a job. It reads no report, judges nothing and survives no
restart: what it leaves out is in its favour.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

import kopf
from kubernetes import aio

from plimsoll_api import API_VERSION, GROUP, VERSION, names

PLURAL = "compressionjobs"
_clients: list[aio.client.ApiClient] = []


@kopf.on.startup()
async def connect(**_: Any) -> None:
    """Make the one client that all handlers share."""
    await aio.config.load_kube_config()
    _clients.append(aio.client.ApiClient())


@kopf.on.cleanup()
async def disconnect(**_: Any) -> None:
    """Close it."""
    await _clients.pop().close()


@kopf.on.event(GROUP, VERSION, PLURAL)
async def begin(body: kopf.Body, status: kopf.Status, **_: Any) -> None:
    """Freeze the plan and start the first stage of a job that has not been begun."""
    if status.get("phase") or body.metadata.name is None:
        return
    await _tell(body.metadata.namespace, body.metadata.name, "Pending", startTime=_now())
    owner = _owner(body.metadata.name, str(body.metadata.uid))
    plan = aio.client.V1ConfigMap(
        metadata=_metadata(names.plan_name(body.metadata.name), owner),
        data={"plan.json": json.dumps(dict(body.spec), sort_keys=True)},
        immutable=True,
    )
    core = aio.client.CoreV1Api(_clients[0])
    await core.create_namespaced_config_map(body.metadata.namespace, plan)
    await _start(body.metadata.namespace, owner, names.STAGE_COMPRESS)
    await _tell(body.metadata.namespace, body.metadata.name, "Compressing")


@kopf.on.event("batch", "v1", "jobs")
async def go_on(body: kopf.Body, labels: kopf.Labels, status: kopf.Status, **_: Any) -> None:
    """Start the second stage when the first has ended, and end the job with the second."""
    conditions = status.get("conditions") or []
    if not any(condition["type"] == "Complete" and condition["status"] == "True" for condition in conditions):
        return
    namespace, stage = body.metadata.namespace, labels.get(names.LABEL_STAGE)
    reference = body.metadata["ownerReferences"][0]
    owner = _owner(reference["name"], reference["uid"])
    if (namespace, owner.name, stage) in _seen:
        return
    _seen.add((namespace, owner.name, stage))
    if stage == names.STAGE_COMPRESS:
        await _start(namespace, owner, names.STAGE_EVALUATE)
    elif stage == names.STAGE_EVALUATE:
        done = {"type": "Complete", "status": "True", "reason": "Done", "message": "", "lastTransitionTime": _now()}
        await _tell(namespace, owner.name, "Succeeded", completionTime=_now(), conditions=[done])


_seen: set[tuple[str | None, str, str | None]] = set()


async def _start(namespace: str | None, owner: Any, stage: str) -> None:
    c = aio.client
    claims = ("models", "data")
    mounts = [c.V1VolumeMount(name=claim, mount_path=f"{names.CLAIMS_DIRECTORY}/{claim}") for claim in claims]
    mounts.append(c.V1VolumeMount(name="plan", mount_path="/var/plimsoll/plan"))
    volumes = [
        c.V1Volume(name=claim, persistent_volume_claim=c.V1PersistentVolumeClaimVolumeSource(claim_name=claim))
        for claim in claims
    ]
    volumes.append(c.V1Volume(name="plan", config_map=c.V1ConfigMapVolumeSource(name=names.plan_name(owner.name))))
    container = c.V1Container(
        name="job",
        image="docker.io/plimsoll/job:bench",
        args=[stage],
        volume_mounts=mounts,
        resources=c.V1ResourceRequirements(requests={"cpu": "100m", "memory": "128Mi"}),
        security_context=c.V1SecurityContext(
            allow_privilege_escalation=False, capabilities=c.V1Capabilities(drop=["ALL"])
        ),
    )
    pod = c.V1PodSpec(
        restart_policy="Never",
        automount_service_account_token=False,
        security_context=c.V1PodSecurityContext(
            run_as_non_root=True, run_as_user=65532, seccomp_profile=c.V1SeccompProfile(type="RuntimeDefault")
        ),
        containers=[container],
        volumes=volumes,
    )
    labels = {names.LABEL_STAGE: stage}
    job = c.V1Job(
        metadata=_metadata(names.stage_name(owner.name, stage), owner, labels),
        spec=c.V1JobSpec(
            backoff_limit=2,
            template=c.V1PodTemplateSpec(metadata=c.V1ObjectMeta(labels=labels), spec=pod),
        ),
    )
    await c.BatchV1Api(_clients[0]).create_namespaced_job(namespace, job)


async def _tell(namespace: str | None, name: str, phase: str, **more: Any) -> None:
    api = aio.client.CustomObjectsApi(_clients[0])
    body = {"status": {"phase": phase, **more}}
    await api.patch_namespaced_custom_object_status(
        GROUP, VERSION, namespace, PLURAL, name, body, _content_type="application/merge-patch+json"
    )


def _owner(name: str, uid: str) -> Any:
    return aio.client.V1OwnerReference(
        api_version=API_VERSION, kind="CompressionJob", name=name, uid=uid, controller=True
    )


def _metadata(name: str, owner: Any, labels: dict[str, str] | None = None) -> Any:
    return aio.client.V1ObjectMeta(name=name, labels=labels or {}, owner_references=[owner])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    kopf.run(clusterwide=True)
