"""What a job does beside its way: pods that may nothing, an operator that dies, files that are not there, a pause."""

from __future__ import annotations

import copy
import json
import subprocess
import time
from typing import Any

import pytest
import yaml
from tests.cluster import tool
from tests.e2e.claims import Claim
from tests.e2e.kube import Kube, Object, condition
from tests.e2e.way import EXAMPLE, HELM_RELEASE, JOB, JOB_SECONDS, SYSTEM, Way

pytestmark = pytest.mark.cluster

ACCOUNT = f"system:serviceaccount:{SYSTEM}:{HELM_RELEASE}"


def variant(name: str, **changes: Any) -> Object:
    """Return the example's job under another name, without a release; `quick` leaves the training out."""
    job: Object = copy.deepcopy(yaml.safe_load((EXAMPLE / "job.yaml").read_text()))
    job["metadata"]["name"] = name
    del job["spec"]["releaseRef"]
    if changes.pop("quick", False):
        job["spec"]["steps"] = [
            {"prune": {"criterion": "Magnitude", "amount": "20%"}},
            {"quantize": {"scheme": "Int8Static"}},
        ]
        job["spec"]["gates"] = [{"metric": "size", "minReduction": "10%"}]
        del job["spec"]["data"]["train"]
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = job["spec"]
        for parent in parents:
            at = at[parent]
        at[last] = value
    return job


def ended(job: Object) -> bool:
    return any(condition(job, kind).get("status") == "True" for kind in ("Complete", "Failed"))


def compressing(job: Object) -> bool:
    return bool(job.get("status", {}).get("phase") == "Compressing")


@pytest.fixture(scope="module")
def kube(way: Way, prepared: list[Claim]) -> Kube:
    assert all(claim.holds for claim in prepared)
    return way.kube


@pytest.fixture(scope="module")
def started(kube: Kube) -> None:
    """All jobs of this module at once: they wait for each other's processor anyway."""
    jobs = [
        variant("survives", evaluation__latency={"batchSizes": [1], "threads": 1}),
        variant("no-model", quick=True, model__uri="pvc://models/nothing"),
        variant("no-evaluation", quick=True, data__evaluation={"uri": "pvc://data/nothing.npz"}),
        variant("no-claim", quick=True, data__evaluation={"uri": "pvc://nowhere/test.npz"}),
        variant("waits", quick=True, suspend=True),
    ]
    kube.run("apply", "-f", "-", stdin=yaml.safe_dump_all(jobs))


@pytest.mark.usefixtures("started")
class TestJobs:
    def test_an_operator_that_is_killed_goes_on_where_it_was(self, way: Way, kube: Kube) -> None:
        kube.wait(JOB, "survives", compressing, seconds=120)
        before = kube.wait(
            "jobs.batch", "survives-compress", lambda job: bool(job["status"].get("active")), seconds=120
        )
        way.system.run(
            "delete", "pod", "-l", f"app.kubernetes.io/instance={HELM_RELEASE}", "--force", "--grace-period=0"
        )
        job = kube.wait(JOB, "survives", ended, seconds=JOB_SECONDS)
        assert condition(job, "Complete").get("status") == "True", job["status"]
        after = kube.get("jobs.batch", "survives-compress")
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        pods = kube.list("pods", "plimsoll.dev/compression-job=survives")
        assert sorted(pod["metadata"]["labels"]["plimsoll.dev/stage"] for pod in pods) == ["compress", "evaluate"]

    def test_its_pods_are_restricted_and_hold_no_token(self, kube: Kube) -> None:
        namespace = json.loads(kube.cluster.kubectl("get", "namespace", kube.namespace, "-o", "json"))
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        pods = kube.list("pods", "plimsoll.dev/stage")
        assert pods
        for pod in pods:
            assert pod["spec"]["automountServiceAccountToken"] is False
            assert not [v for v in pod["spec"]["volumes"] if "projected" in v or "secret" in v]
            for container in pod["spec"]["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"] is True

    def test_a_pod_mounts_what_its_stage_names_and_nothing_else(self, kube: Kube) -> None:
        compress, evaluate = (mounts(kube, "survives", stage) for stage in ("compress", "evaluate"))
        assert compress == {
            "models/digits-cnn": "ro",
            "data/digits-train.npz": "ro",
            "data/digits-calibration.npz": "ro",
            "models/out": "rw",
        }
        assert {path: how for path, how in evaluate.items() if path.startswith("data/")} == {
            "data/digits-test.npz": "ro"
        }
        assert not [path for path, how in evaluate.items() if how == "rw" and "artifacts" in path]

    def test_a_missing_model_fails_by_its_field(self, kube: Kube) -> None:
        job = kube.wait(JOB, "no-model", ended, seconds=JOB_SECONDS)
        failed = condition(job, "Failed")
        assert failed["reason"] == "RequestWrong", failed
        assert "spec.model.uri: there is nothing at pvc://models/nothing" in failed["message"], failed

    def test_a_missing_claim_is_said_while_it_waits(self, kube: Kube) -> None:
        def says_so(job: Object) -> bool:
            return any("nowhere" in c["message"] for c in job.get("status", {}).get("conditions", []))

        job = kube.wait(JOB, "no-claim", says_so, seconds=JOB_SECONDS)
        assert condition(job, "Ready")["status"] == "False"
        kube.run("delete", JOB, "no-claim")

    def test_a_suspended_job_has_no_pods_until_it_is_resumed_and_again_when_paused(self, kube: Kube) -> None:
        mine = "plimsoll.dev/compression-job=waits"
        job = kube.wait(JOB, "waits", lambda job: condition(job, "Suspended").get("status") == "True", seconds=120)
        assert job["status"]["phase"] == "Suspended"
        assert not kube.list("pods", mine)
        resume, pause = (json.dumps({"spec": {"suspend": value}}) for value in (False, True))
        kube.run("patch", JOB, "waits", "--type=merge", "-p", resume)
        kube.wait(JOB, "waits", compressing, seconds=120)
        deadline = time.monotonic() + 60
        while not kube.list("pods", mine) and time.monotonic() < deadline:
            time.sleep(0.5)
        kube.run("patch", JOB, "waits", "--type=merge", "-p", pause)
        kube.wait_gone("pods", mine, seconds=120)
        kube.run("patch", JOB, "waits", "--type=merge", "-p", resume)
        job = kube.wait(JOB, "waits", ended, seconds=JOB_SECONDS)
        assert condition(job, "Complete").get("status") == "True", job["status"]

    def test_missing_evaluation_data_fails_by_its_name(self, kube: Kube) -> None:
        # The last one: its pod is given a minute to start after all, and the others' pods run meanwhile.
        job = kube.wait(JOB, "no-evaluation", ended, seconds=JOB_SECONDS)
        failed = condition(job, "Failed")
        assert failed["status"] == "True"
        assert "nothing.npz" in failed["message"], failed


def mounts(kube: Kube, job: str, stage: str) -> dict[str, str]:
    """Return what the stage's pod mounts of claims, and whether it may write there."""
    (pod,) = kube.list("pods", f"plimsoll.dev/compression-job={job},plimsoll.dev/stage={stage}")
    root = "/var/plimsoll/claims/"
    return {
        mount["mountPath"].removeprefix(root): "ro" if mount.get("readOnly") else "rw"
        for mount in pod["spec"]["containers"][0]["volumeMounts"]
        if mount["mountPath"].startswith(root)
    }


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("get", "secrets"),
        ("list", "secrets"),
        ("create", "pods/exec"),
        ("create", "pods"),
        ("update", "compressionjobs.plimsoll.dev"),
        ("patch", "modelreleases.plimsoll.dev"),
        ("patch", "deployments.apps"),
        ("list", "configmaps"),
        ("create", "clusterroles.rbac.authorization.k8s.io"),
        ("create", "serviceaccounts/token"),
    ],
)
def test_the_operator_may_not(way: Way, installed: list[Claim], verb: str, resource: str) -> None:
    done = subprocess.run(
        [tool("kubectl"), "--kubeconfig", way.cluster.kubeconfig, "--namespace", way.kube.namespace,
         "auth", "can-i", verb, resource, "--as", ACCOUNT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "no"
