"""CompressionJobs that go wrong on the real API server: what is tried again, and what people are told."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.operator_run import Space
from tests.integration.puppet import Act, Puppet, wait_for
from tests.integration.stories import (
    all_well,
    compressed,
    compression_job,
    digest,
    evaluated,
    good_report,
    measured,
    request_of,
    stage_of,
    went_wrong,
)

pytestmark = pytest.mark.apiserver


@pytest.mark.usefixtures("operator")
def test_a_wrong_request_is_not_tried_again(space: Space, puppet: Puppet) -> None:
    puppet.script = lambda pod: went_wrong("spec.model.uri: no model.safetensors there")
    space.create(compression_job("wrong", backoffLimit=3))
    space.wait_phase("wrong", "Failed")
    assert space.conditions("CompressionJob", "wrong")["Failed"] == ("True", "RequestWrong")
    assert len(puppet.acted) == 1
    assert "no model.safetensors there" in space.events("wrong")[0][1]


@pytest.mark.usefixtures("operator")
def test_a_crash_is_tried_again_and_its_last_words_are_told(space: Space, puppet: Puppet) -> None:
    puppet.script = lambda pod: Act(exit_code=137, message="Killed: out of memory")
    space.create(compression_job("crash", backoffLimit=0))
    space.wait_phase("crash", "Failed")
    conditions = space.status("CompressionJob", "crash")["conditions"]
    failed = next(entry for entry in conditions if entry["type"] == "Failed")
    assert failed["reason"] == "StageFailed"
    assert "ended with 137: Killed: out of memory" in failed["message"]


@pytest.mark.usefixtures("operator")
def test_a_disruption_does_not_count_as_a_failure(space: Space, puppet: Puppet) -> None:
    def script(pod: dict[str, Any]) -> Act:
        first = len([name for name in puppet.acted if "-compress-" in name]) == 1
        return Act(exit_code=143, disrupted=True) if first else all_well(pod)

    puppet.script = script
    space.create(compression_job("evicted", backoffLimit=0))
    space.wait_phase("evicted", "Succeeded", seconds=60)
    assert len(puppet.acted) == 3


@pytest.mark.usefixtures("operator")
def test_a_report_split_by_the_container_runtime_is_joined(space: Space, puppet: Puppet) -> None:
    puppet.script = evaluated(lambda pod: measured(good_report(request_of(pod)), split=100))
    space.create(compression_job("split"))
    space.wait_phase("split", "Succeeded")
    assert len(puppet.acted) == 2


@pytest.mark.usefixtures("operator")
def test_a_report_that_cannot_be_read_is_printed_again(space: Space, puppet: Puppet) -> None:
    reports: list[Act] = []

    def script(pod: dict[str, Any]) -> Act:
        if stage_of(pod) == "print-report":
            return Act(message=reports[0].message, log=reports[0].log)
        if stage_of(pod) == "evaluate":
            reports.append(measured(good_report(request_of(pod))))
            return Act(message=reports[0].message, log="the log was rotated away\n")
        return all_well(pod)

    puppet.script = script
    space.create(compression_job("rotated"))
    space.wait_phase("rotated", "Succeeded")
    printed = next(pod for name, pod in puppet.seen.items() if name.startswith("rotated-print-report"))
    arguments = printed["spec"]["containers"][0]["args"]
    assert arguments[0] == "print-report"
    assert arguments[3:] == ["--digest", arguments[2].rsplit("/", 1)[1].removesuffix(".json").join(["sha256:", ""])]


@pytest.mark.usefixtures("operator")
def test_a_report_of_another_digest_is_never_believed(space: Space, puppet: Puppet) -> None:
    forged = digest("forged")
    puppet.script = lambda pod: (
        all_well(pod)
        if stage_of(pod) == "compress"
        else measured(good_report(request_of(pod)), digest=forged)
        if stage_of(pod) == "evaluate"
        else Act(message=compressed("x").message, log="nothing\n")
    )
    space.create(compression_job("forged"))
    space.wait_phase("forged", "Failed")
    assert space.conditions("CompressionJob", "forged")["Failed"] == ("True", "ReportUnreadable")


@pytest.mark.usefixtures("operator")
def test_a_pod_that_cannot_start_is_told_and_may_still_start(space: Space, puppet: Puppet) -> None:
    puppet.script = lambda pod: Act(waiting=("ImagePullBackOff", "Back-off pulling image puppet/job:1"))
    space.create(compression_job("pull"))
    wait_for(lambda: space.conditions("CompressionJob", "pull").get("Reconciling") == ("True", "PodCannotStart"))
    puppet.script = all_well
    pod = next(name for name in puppet.acted if name.startswith("pull-compress"))
    puppet.finish(space.name, pod, compressed("pull"))
    space.wait_phase("pull", "Succeeded")


@pytest.mark.usefixtures("operator", "puppet")
def test_a_quota_that_allows_no_pod_is_told(space: Space) -> None:
    space.core.create_namespaced_resource_quota(
        space.name, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    )
    space.create(compression_job("quota"))

    def is_told() -> bool:
        # Reason and message of one status: the next may be of a moment at which a pod is tried again.
        conditions = space.status("CompressionJob", "quota").get("conditions") or []
        told = {one["type"]: one for one in conditions}.get("Reconciling", {})
        return told.get("reason") == "PodCannotStart" and "exceeded quota" in told["message"]

    wait_for(is_told, 60)


@pytest.mark.usefixtures("operator", "puppet")
def test_a_pod_that_the_api_server_finds_invalid_ends_the_job_in_its_words(space: Space) -> None:
    runtime = {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}
    space.create(compression_job("invalid", runtime=runtime))
    space.wait_phase("invalid", "Failed")
    assert space.conditions("CompressionJob", "invalid")["Failed"] == ("True", "RequestWrong")
    told = dict(space.events("invalid"))["RequestWrong"]
    assert "resources.requests" in told
    assert "cpu limit of 1" in told


@pytest.mark.usefixtures("operator", "puppet")
def test_a_quota_that_allows_no_batch_job_is_told(space: Space) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    space.core.create_namespaced_resource_quota(space.name, quota)
    wait_for(lambda: space.core.read_namespaced_resource_quota("none", space.name).status.hard)
    space.create(compression_job("quota"))
    wait_for(lambda: space.conditions("CompressionJob", "quota").get("Reconciling") == ("True", "NotAllowed"))
    assert "exceeded quota" in space.status("CompressionJob", "quota")["conditions"][0]["message"]


@pytest.mark.usefixtures("operator", "puppet")
def test_evaluation_data_that_compress_would_see_is_refused(space: Space) -> None:
    job = compression_job("leak")
    job["spec"]["model"]["uri"] = "pvc://data"
    space.create(job)
    space.wait_phase("leak", "Failed")
    assert space.conditions("CompressionJob", "leak")["Failed"] == ("True", "RequestWrong")
    assert not space.batch.list_namespaced_job(space.name).items
