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
from bench.operator.workload import IMAGE, compression_job
from kubernetes import aio
from kubernetes.aio import client as c

from plimsoll_api import API_VERSION, GROUP, VERSION, names

PLURAL = "compressionjobs"
#: As long as the request that our evaluate pod gets.
REQUEST = json.dumps(compression_job("")["spec"])[:690]
_clients: list[c.ApiClient] = []


@kopf.on.startup()
async def connect(**_: Any) -> None:
    """Make the one client that all handlers share."""
    await aio.config.load_kube_config()
    _clients.append(c.ApiClient())


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
    plan = c.V1ConfigMap(
        metadata=_metadata(names.plan_name(body.metadata.name), owner),
        data={"plan.json": json.dumps(dict(body.spec), sort_keys=True)},
        immutable=True,
    )
    core = c.CoreV1Api(_clients[0])
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
    labels = {names.LABEL_MANAGED_BY: "naive", names.LABEL_JOB: owner.name, names.LABEL_STAGE: stage}
    ignore = c.V1PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")
    fail = c.V1PodFailurePolicyOnExitCodesRequirement(container_name="job", operator="In", values=[64])
    job = c.V1Job(
        metadata=_metadata(names.stage_name(owner.name, stage), owner, labels),
        spec=c.V1JobSpec(
            backoff_limit=2,
            pod_failure_policy=c.V1PodFailurePolicy(
                rules=[
                    c.V1PodFailurePolicyRule(action="Ignore", on_pod_conditions=[ignore]),
                    c.V1PodFailurePolicyRule(action="FailJob", on_exit_codes=fail),
                ]
            ),
            template=c.V1PodTemplateSpec(metadata=c.V1ObjectMeta(labels=labels), spec=_pod(owner.name, stage)),
        ),
    )
    await c.BatchV1Api(_clients[0]).create_namespaced_job(namespace, job)


def _pod(owner: str, stage: str) -> Any:
    """Return a pod of the same contents as ours: what differs are the operators, not what they ask for."""
    compress = stage == names.STAGE_COMPRESS
    claims = {"models": ["digits-cnn"], "data": ["train.npz", "calibration.npz"] if compress else ["test.npz"]}
    mounts = [
        c.V1VolumeMount(
            name=claim, mount_path=f"{names.CLAIMS_DIRECTORY}/{claim}/{path}", sub_path=path, read_only=True
        )
        for claim, paths in claims.items()
        for path in paths
    ]
    mounts += [
        c.V1VolumeMount(name="models", mount_path=f"{names.CLAIMS_DIRECTORY}/models/out", sub_path="out"),
        c.V1VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108 - of the pod
    ]
    volumes = [
        c.V1Volume(name=claim, persistent_volume_claim=c.V1PersistentVolumeClaimVolumeSource(claim_name=claim))
        for claim in claims
    ]
    volumes.append(c.V1Volume(name="tmp", empty_dir=c.V1EmptyDirVolumeSource()))
    environment = {"HOME": "/tmp", "XDG_CACHE_HOME": "/tmp/cache"}  # noqa: S108 - of the pod
    if compress:
        mounts.append(c.V1VolumeMount(name="plan", mount_path="/var/plimsoll/plan", read_only=True))
        volumes.append(c.V1Volume(name="plan", config_map=c.V1ConfigMapVolumeSource(name=names.plan_name(owner))))
    else:
        environment[names.REQUEST_VARIABLE] = REQUEST
    container = c.V1Container(
        name="job",
        image=IMAGE,
        args=[stage],
        env=[c.V1EnvVar(name=name, value=value) for name, value in environment.items()],
        volume_mounts=mounts,
        resources=c.V1ResourceRequirements(requests={"cpu": "100m", "memory": "128Mi"}),
        termination_message_policy="FallbackToLogsOnError",
        security_context=c.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=c.V1Capabilities(drop=["ALL"]),
        ),
    )
    return c.V1PodSpec(
        restart_policy="Never",
        automount_service_account_token=False,
        enable_service_links=False,
        termination_grace_period_seconds=10,
        security_context=c.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=65532,
            run_as_group=65532,
            fs_group=65532,
            fs_group_change_policy="OnRootMismatch",
            seccomp_profile=c.V1SeccompProfile(type="RuntimeDefault"),
        ),
        containers=[container],
        volumes=volumes,
    )


async def _tell(namespace: str | None, name: str, phase: str, **more: Any) -> None:
    api = c.CustomObjectsApi(_clients[0])
    body = {"status": {"phase": phase, **more}}
    await api.patch_namespaced_custom_object_status(
        GROUP, VERSION, namespace, PLURAL, name, body, _content_type="application/merge-patch+json"
    )


def _owner(name: str, uid: str) -> Any:
    return c.V1OwnerReference(api_version=API_VERSION, kind="CompressionJob", name=name, uid=uid, controller=True)


def _metadata(name: str, owner: Any, labels: dict[str, str] | None = None) -> Any:
    return c.V1ObjectMeta(name=name, labels=labels or {}, owner_references=[owner])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    kopf.run(clusterwide=True)
