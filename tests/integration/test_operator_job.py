"""CompressionJobs on the real API server with the real controller, from start to end; the test plays the kubelet."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.operator_run import OperatorRun, Space
from tests.integration.puppet import Act, Puppet, wait_for
from tests.integration.stories import (
    all_well,
    compression_job,
    digest,
    evaluated,
    good_report,
    measured,
    model_release,
    request_of,
    stage_of,
)

pytestmark = pytest.mark.apiserver


@pytest.mark.usefixtures("operator", "puppet")
def test_a_job_that_passes_becomes_a_revision(space: Space) -> None:
    space.create(model_release("digits"))
    space.create(compression_job("one", releaseRef={"name": "digits"}))
    status = space.wait_phase("one", "Succeeded")
    assert status["verdict"] == "Pass"
    assert status["revision"] == 2
    conditions = space.conditions("CompressionJob", "one")
    assert conditions["Ready"] == ("True", "Released")
    assert conditions["Complete"] == ("True", "Released")
    assert conditions["Reconciling"][0] == conditions["Stalled"][0] == "False"
    assert conditions["GatePassed"] == ("True", "GatePassed")
    assert conditions["Released"] == ("True", "Released")
    assert status["summary"]["accuracy"]["change"] == "-0.15pp"
    assert [check["verdict"] for check in status["checks"]] == ["Pass", "Pass"]
    baseline, candidate = space.all("ModelRevision")
    assert (baseline["spec"]["revision"], baseline["spec"]["artifact"]["digest"]) == (1, digest("baseline"))
    assert candidate["spec"]["artifact"]["digest"] == digest("candidate-one")
    wait_for(lambda: (space.config_map("digits-model") or {}).get("revision") == "2")
    pointer = space.config_map("digits-model") or {}
    assert pointer["digest"] == digest("candidate-one")
    assert pointer["uri"] == candidate["spec"]["artifact"]["uri"]
    assert [reason for reason, _ in space.events("one")] == ["Released"]


@pytest.mark.usefixtures("operator")
def test_pods_are_restricted_and_see_only_what_they_need(space: Space, puppet: Puppet) -> None:
    job = compression_job("seen")
    job["spec"]["model"]["uri"] = "pvc://all/model"
    job["spec"]["data"] = {
        "train": {"uri": "pvc://all/train.npz"},
        "calibration": {"uri": "pvc://all/calibration.npz"},
        "evaluation": {"uri": "pvc://all/test.npz"},
    }
    space.create(job)
    space.wait_phase("seen", "Succeeded")
    pods = {stage_of(pod): pod for pod in puppet.seen.values() if pod["metadata"]["namespace"] == space.name}
    for pod in pods.values():
        assert pod["spec"]["automountServiceAccountToken"] is False
    assert mounts_of(pods["compress"]) == {
        "all/model": True,
        "all/train.npz": True,
        "all/calibration.npz": True,
        "models/out": False,
    }
    assert mounts_of(pods["evaluate"]) == {"all/test.npz": True, "models/out": True, "models/out/reports": False}
    claims = [
        volume["persistentVolumeClaim"]
        for volume in pods["evaluate"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert claims == [{"claimName": "all", "readOnly": True}, {"claimName": "models"}]


def mounts_of(pod: dict[str, Any]) -> dict[str, bool]:
    """Return whether each mounted path of a claim is read-only."""
    below = "/var/plimsoll/claims/"
    mounts = pod["spec"]["containers"][0]["volumeMounts"]
    return {
        mount["mountPath"].removeprefix(below): mount.get("readOnly", False)
        for mount in mounts
        if mount["mountPath"].startswith(below)
    }


@pytest.mark.usefixtures("operator")
def test_a_candidate_that_fails_its_gate_never_moves_the_pointer(space: Space, puppet: Puppet) -> None:
    space.create(model_release("digits"))
    space.create(compression_job("good", releaseRef={"name": "digits"}))
    space.wait_phase("good", "Succeeded")
    puppet.script = evaluated(lambda pod: measured(good_report(request_of(pod), lost=400)))
    space.create(compression_job("bad", releaseRef={"name": "digits"}))
    status = space.wait_phase("bad", "Rejected")
    assert status["verdict"] == "Fail"
    conditions = space.conditions("CompressionJob", "bad")
    assert conditions["Stalled"] == conditions["Failed"] == ("True", "GateFailed")
    assert conditions["GatePassed"] == ("False", "GateFailed")
    assert "revision" not in status
    assert len(space.all("ModelRevision")) == 2
    assert space.status("ModelRelease", "digits")["currentRevision"] == 2
    assert [reason for reason, _ in space.events("bad")] == ["GateFailed"]


@pytest.mark.usefixtures("operator")
def test_an_undecided_gate_releases_nothing(space: Space, puppet: Puppet) -> None:
    puppet.script = evaluated(lambda pod: measured(good_report(request_of(pod), lost=36)))
    space.create(compression_job("unsure"))
    status = space.wait_phase("unsure", "Inconclusive")
    assert space.conditions("CompressionJob", "unsure")["GatePassed"] == ("False", "GateInconclusive")
    assert status["checks"][0]["neededSamples"] > 2000


@pytest.mark.usefixtures("operator")
def test_suspend_stops_the_pods_and_resume_goes_on(space: Space, puppet: Puppet) -> None:
    puppet.script = lambda pod: Act(exit_code=None)
    space.create(compression_job("paused"))
    wait_for(lambda: puppet.acted)
    space.change("CompressionJob", "paused", suspend=True)
    status = space.wait_phase("paused", "Suspended")
    assert status["observedGeneration"] == 2
    wait_for(lambda: not space.core.list_namespaced_pod(space.name).items)
    assert space.conditions("CompressionJob", "paused")["Suspended"] == ("True", "Suspended")
    puppet.script = all_well
    space.change("CompressionJob", "paused", suspend=False)
    space.wait_phase("paused", "Succeeded")
    assert space.conditions("CompressionJob", "paused")["Suspended"] == ("False", "Resumed")


@pytest.mark.usefixtures("operator", "puppet")
def test_a_job_made_suspended_starts_nothing(space: Space) -> None:
    space.create(compression_job("asleep", suspend=True))
    space.wait_phase("asleep", "Suspended")
    assert not space.batch.list_namespaced_job(space.name).items


@pytest.mark.usefixtures("operator")
def test_the_deadline_ends_the_job_and_its_pods(space: Space, puppet: Puppet) -> None:
    puppet.script = lambda pod: Act(exit_code=None)
    space.create(compression_job("late", activeDeadlineSeconds=4))
    space.wait_phase("late", "Failed")
    assert space.conditions("CompressionJob", "late")["Failed"] == ("True", "DeadlineExceeded")
    wait_for(lambda: not space.core.list_namespaced_pod(space.name).items)


@pytest.mark.usefixtures("operator", "puppet")
def test_ttl_deletes_the_job_and_its_children_but_not_its_revisions(space: Space) -> None:
    space.create(model_release("kept"))
    space.create(compression_job("brief", ttlSecondsAfterFinished=2, releaseRef={"name": "kept"}))
    wait_for(lambda: space.status("CompressionJob", "brief").get("phase") == "Succeeded")
    wait_for(lambda: space.get("CompressionJob", "brief") is None, 20)
    wait_for(lambda: not space.batch.list_namespaced_job(space.name).items, 20)
    wait_for(lambda: space.config_map("brief-plan") is None, 20)
    assert len(space.all("ModelRevision")) == 2
    assert space.config_map("kept-model")


@pytest.mark.usefixtures("operator")
def test_deleting_a_running_job_leaves_nothing(space: Space, puppet: Puppet) -> None:
    puppet.script = lambda pod: Act(exit_code=None)
    space.create(compression_job("gone"))
    wait_for(lambda: puppet.acted)
    space.cluster.kubectl("-n", space.name, "delete", "compressionjob", "gone", "--wait=false")
    wait_for(lambda: not space.core.list_namespaced_pod(space.name).items, 20)
    assert space.get("CompressionJob", "gone") is None


@pytest.mark.usefixtures("operator", "puppet")
def test_a_job_waits_for_its_release_and_is_released_once_it_appears(space: Space) -> None:
    space.create(compression_job("early", releaseRef={"name": "later"}))
    status = space.wait_phase("early", "Releasing")
    assert status["verdict"] == "Pass"
    assert space.conditions("CompressionJob", "early")["Released"] == ("False", "ReleaseNotFound")
    space.create(model_release("later"))
    assert space.wait_phase("early", "Succeeded")["revision"] == 2
    assert [reason for reason, _ in space.events("early")] == ["Released"]


@pytest.mark.usefixtures("operator", "puppet")
def test_jobs_that_finish_together_get_numbers_of_their_own(space: Space) -> None:
    jobs = [f"racer-{number}" for number in range(6)]
    for job in jobs:
        space.create(compression_job(job, releaseRef={"name": "race"}))
    for job in jobs:
        space.wait_phase(job, "Releasing", seconds=60)
    space.create(model_release("race"))
    numbers = [space.wait_phase(job, "Succeeded")["revision"] for job in jobs]
    assert sorted(numbers) == [2, 3, 4, 5, 6, 7]
    assert [item["spec"]["revision"] for item in space.all("ModelRevision")] == [1, 2, 3, 4, 5, 6, 7]
    wait_for(lambda: space.status("ModelRelease", "race").get("currentRevision") == 7)


@pytest.mark.usefixtures("operator", "puppet")
def test_the_longest_name_works(space: Space) -> None:
    name = "n" * 63
    space.create(compression_job(name))
    space.wait_phase(name, "Succeeded")


@pytest.mark.usefixtures("puppet")
def test_metrics_and_health_are_served(space: Space, operator: OperatorRun) -> None:
    space.create(model_release("shown"))
    space.create(compression_job("counted", releaseRef={"name": "shown"}))
    space.wait_phase("counted", "Succeeded")
    wait_for(lambda: space.status("ModelRelease", "shown").get("currentRevision") == 2)
    wait_for(
        lambda: f'plimsoll_release_revision{{namespace="{space.name}",release="shown"}} 2.0' in operator.get("/metrics")
    )
    text = operator.get("/metrics")
    assert f'plimsoll_jobs{{namespace="{space.name}",phase="Succeeded"}} 1.0' in text
    assert 'plimsoll_verdicts_total{kind="CompressionJob",verdict="Pass"} 1.0' in text
    assert 'plimsoll_stage_duration_seconds_count{stage="compress"} 1.0' in text
    assert 'plimsoll_stage_duration_seconds_count{stage="evaluate"} 1.0' in text
    assert 'model="candidate"' in text
    assert operator.get("/healthz") == "ok\n"
    assert operator.get("/readyz") == "ok\n"
    assert operator.stop() == 0
