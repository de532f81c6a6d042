"""A stage as its batch Job and pods show it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.stories import compressed, went_wrong
from tests.operator.worlds import NOW, UID

from plimsoll_api.report import Outcome, Summary
from plimsoll_operator.stage import SETTLING, START_GRACE, StageState, read_stage
from plimsoll_operator.views import BatchJobView, PodView, batch_job_view, pod_view

JOB = BatchJobView(
    namespace="ns",
    name="one-compress",
    uid="batch-uid",
    owner_uid=UID,
    compression_job="one",
    release=None,
    suspended=False,
    deleting=False,
    complete=False,
    failure=None,
    created=NOW,
    started=NOW,
    finished=None,
)
POD = PodView(
    namespace="ns",
    name="one-compress-a",
    job_uid="batch-uid",
    phase="Running",
    created=NOW,
    waiting=None,
    exit_code=None,
    termination_message="",
)
DONE = replace(POD, phase="Succeeded", exit_code=0, termination_message=compressed("one").message)


@pytest.mark.parametrize(
    ("job", "pods", "state"),
    [
        (None, (), StageState.ABSENT),
        (replace(JOB, owner_uid="another"), (), StageState.FOREIGN),
        (replace(JOB, deleting=True), (), StageState.LEAVING),
        (JOB, (), StageState.ACTIVE),
        (JOB, (POD,), StageState.ACTIVE),
        (replace(JOB, complete=True), (DONE,), StageState.DONE),
        (replace(JOB, complete=True), (), StageState.LOST),
        (replace(JOB, complete=True), (POD,), StageState.LOST),
        (replace(JOB, complete=True), (replace(DONE, termination_message="oops"),), StageState.FAILED),
        (replace(JOB, failure=("BackoffLimitExceeded", "too often")), (), StageState.FAILED),
    ],
)
def test_states(job: BatchJobView | None, pods: tuple[PodView, ...], state: StageState) -> None:
    assert read_stage("one-compress", job, pods, UID, NOW).state is state


def test_a_pod_whose_end_is_not_believed_before_its_job_says_so() -> None:
    assert read_stage("one-compress", JOB, (DONE,), UID, NOW).state is StageState.ACTIVE


@pytest.mark.parametrize(
    ("code", "outcome"), [(64, Outcome.REQUEST_WRONG), (70, Outcome.INTERNAL_ERROR), (75, Outcome.TRY_AGAIN), (1, None)]
)
@pytest.mark.parametrize("told", [True, False])
def test_a_pods_end_says_who_must_act(code: int, outcome: Outcome | None, told: bool) -> None:
    summary = Summary(outcome=outcome, reason="Because", message="of this").canonical_json().decode() if outcome else ""
    pod = replace(POD, phase="Failed", exit_code=code, termination_message=summary if told else "Traceback")
    problem = read_stage("one-compress", replace(JOB, failure=("PodFailurePolicy", "x")), (pod,), UID, NOW).problem
    assert problem is not None
    # Without a summary only the codes that end a batch Job at once tell anything.
    assert problem.outcome == (outcome if told or outcome is not Outcome.TRY_AGAIN else None)


@pytest.mark.parametrize("code", [64, 70])
def test_what_ended_the_job_is_told_rather_than_a_later_crash(code: int) -> None:
    message = went_wrong("spec.model.uri: none").message
    refused = replace(POD, phase="Failed", exit_code=code, termination_message=message)
    crashed = replace(POD, name="b", phase="Failed", exit_code=1, termination_message="Traceback")
    failed = replace(JOB, failure=("PodFailurePolicy", "x"))
    problem = read_stage("one-compress", failed, (refused, crashed), UID, NOW).problem
    assert problem is not None
    assert (problem.outcome, problem.message) == (Outcome.REQUEST_WRONG, "spec.model.uri: none")


def test_the_last_words_are_cut_to_their_end() -> None:
    crashed = replace(POD, phase="Failed", exit_code=1, termination_message="x" * 5000 + "the cause")
    problem = read_stage("one-compress", replace(JOB, failure=("B", "")), (crashed,), UID, NOW).problem
    assert problem is not None
    assert problem.message.endswith("the cause")
    assert len(problem.message) < 1200


@pytest.mark.parametrize(
    ("reason", "age", "hopeless"),
    [
        ("CreateContainerConfigError", START_GRACE, True),
        ("CreateContainerConfigError", START_GRACE - timedelta(seconds=1), False),
        ("InvalidImageName", START_GRACE, True),
        ("ImagePullBackOff", START_GRACE * 100, False),
        ("Unschedulable", START_GRACE * 100, False),
    ],
)
def test_only_what_waiting_cannot_mend_is_hopeless_after_a_grace(reason: str, age: timedelta, hopeless: bool) -> None:
    pod = replace(POD, phase="Pending", waiting=(reason, "why"))
    problem = read_stage("one-compress", JOB, (pod,), UID, NOW + age).problem
    assert problem is not None
    assert problem.hopeless is hopeless
    assert "why" in problem.message


def test_what_may_pass_by_itself_is_not_told_at_once() -> None:
    pod = replace(POD, phase="Pending", waiting=("Unschedulable", "no node yet"))
    assert read_stage("one-compress", JOB, (pod,), UID, NOW + SETTLING / 2).problem is None
    assert read_stage("one-compress", JOB, (pod,), UID, NOW + SETTLING).problem is not None


def pod_object(**status: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": "p", "labels": {}}, "status": status}


def test_views_keep_what_matters() -> None:
    waiting = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    assert pod_view(pod_object(phase="Pending", containerStatuses=[waiting])).waiting is None
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    assert pod_view(pod_object(phase="Pending", conditions=[unschedulable])).waiting == ("Unschedulable", "no node")
    ended = {"state": {"terminated": {"exitCode": 137, "message": "m"}}}
    assert pod_view(pod_object(phase="Failed", containerStatuses=[ended])).exit_code == 137
    job = {"metadata": {"namespace": "ns", "name": "j", "uid": "u"}, "spec": {}, "status": {}}
    failed = {"type": "Failed", "status": "True", "reason": "R", "message": "m"}
    assert batch_job_view(json.loads(json.dumps({**job, "status": {"conditions": [failed]}}))).failure == ("R", "m")
    assert batch_job_view({**job, "status": {"conditions": [{**failed, "status": "False"}]}}).failure is None
