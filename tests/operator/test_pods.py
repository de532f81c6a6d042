"""The pods of a batch Job: what spec.runtime asks for goes through to them, and nothing else."""

from __future__ import annotations

from typing import Any

from tests.operator.worlds import UID

from plimsoll_api.spec import Runtime
from plimsoll_operator.cluster.resources import COMPRESSION_JOBS
from plimsoll_operator.pods import Owner, batch_job

RUNTIME: dict[str, Any] = {
    "resources": {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"memory": "4Gi", "nvidia.com/gpu": "1"},
    },
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [
        {"operator": "Exists"},
        {"key": "dedicated", "value": "models", "effect": "NoExecute", "tolerationSeconds": 60},
    ],
    "runtimeClassName": "nvidia",
    "priorityClassName": "low",
    "serviceAccountName": "models.reader",
}


def pod_of(runtime: Runtime) -> dict[str, Any]:
    owner = Owner(COMPRESSION_JOBS, "ns", "one", UID)
    job = batch_job(owner=owner, name="one-x", labels={}, arguments=["x"], runtime=runtime, image="i")
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def test_all_that_the_runtime_asks_for_goes_through() -> None:
    pod = pod_of(Runtime.model_validate(RUNTIME))
    assert pod["containers"][0]["resources"] == RUNTIME["resources"]
    assert {key: pod[key] for key in RUNTIME if key != "resources"} == {
        key: value for key, value in RUNTIME.items() if key != "resources"
    }


def test_what_it_does_not_ask_for_is_left_to_the_cluster() -> None:
    pod = pod_of(Runtime())
    assert (
        not {"runtimeClassName", "nodeSelector", "tolerations", "priorityClassName", "serviceAccountName"} & pod.keys()
    )
    assert pod["containers"][0]["resources"] == {"requests": {}, "limits": {}}


def test_several_gpus_get_memory_to_share() -> None:
    for gpus, shared in (("1", False), ("4", True), ("0", False)):
        pod = pod_of(Runtime.model_validate({"resources": {"limits": {"nvidia.com/gpu": gpus}}}))
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        paths = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
        assert (volumes.get("shm") == {"name": "shm", "emptyDir": {"medium": "Memory"}}) is shared
        assert ("/dev/shm" in paths) is shared
