"""Decisions about CompressionJobs that go well, or are stopped, as claims."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.integration.stories import request_of
from tests.operator.worlds import (
    CANDIDATE,
    NOW,
    PEAK,
    PLAN,
    UID,
    advanced,
    compressed_stage,
    conditions,
    evaluated_stage,
    evaluating,
    judged,
    order,
    orders,
    reading,
    release,
    revision,
    snapshot,
    stage,
    started,
    told,
)

from plimsoll_api import names
from plimsoll_api.model import digest_of
from plimsoll_api.plan import EvaluationRequest
from plimsoll_operator.actions import Create, Decision
from plimsoll_operator.clock import format_time
from plimsoll_operator.job.decide import decide
from plimsoll_operator.job.snapshot import FrozenPlan
from plimsoll_operator.stage import StageState

ACTIVE = StageState.ACTIVE
TO_RELEASE = {"releaseRef": {"name": "digits"}}


def asked(decision: Decision) -> EvaluationRequest:
    """Return what the evaluation that was ordered is to measure."""
    (create,) = decision.actions
    assert isinstance(create, Create)
    return request_of(create.manifest["spec"]["template"])


def test_a_new_job_freezes_its_plan_and_compresses() -> None:
    decision = decide(order(), snapshot(), NOW)
    assert orders(decision) == ["create one-plan", "create one-compress"]
    plan = decision.actions[0].manifest  # type: ignore[union-attr]
    assert plan["immutable"] is True
    assert told(decision).plan_digest == digest_of(plan["data"]["plan.json"].encode())
    assert "test.npz" not in plan["data"]["plan.json"]
    assert told(decision).start_time == format_time(NOW)
    assert conditions(decision)["Reconciling"] == ("True", "Compressing")


def test_the_plan_that_exists_already_holds() -> None:
    decision = decide(order(), snapshot(plan=FrozenPlan(PLAN, UID)), NOW)
    assert orders(decision) == ["create one-compress"]
    assert told(decision).plan_digest == PLAN


def test_a_plan_of_someone_else_is_waited_for() -> None:
    decision = decide(order(), snapshot(plan=FrozenPlan(PLAN, "another")), NOW)
    assert orders(decision) == []
    assert conditions(decision)["Reconciling"] == ("True", "Pending")


def test_nothing_is_ordered_twice_while_a_stage_runs() -> None:
    for seen in (started(), evaluating()):
        decision = decide(order(), seen, NOW + timedelta(seconds=1))
        assert orders(decision) == []
        assert decision.status == seen.status.to_wire()


def test_compress_is_followed_by_evaluate_which_knows_the_artifacts() -> None:
    seen = advanced(started(), decide(order(), started(), NOW), compress=compressed_stage())
    decision = decide(order(), seen, NOW)
    assert orders(decision) == ["create one-evaluate"]
    assert told(decision).artifact == CANDIDATE
    assert told(decision).compression_peak_memory_bytes == PEAK
    assert asked(decision).compression_peak_memory_bytes == PEAK
    assert decision.measured == (("compress", 60.0),)


def test_what_a_crash_left_untold_is_told_afterwards() -> None:
    plan = FrozenPlan(PLAN, UID, format_time(NOW))
    compressing = decide(order(), snapshot(compress=stage("compress", ACTIVE), plan=plan), NOW)
    assert orders(compressing) == []
    assert (told(compressing).plan_digest, told(compressing).start_time) == (PLAN, format_time(NOW))
    seen = snapshot(
        compress=compressed_stage(), evaluate=evaluated_stage(), report=reading(), plan=plan, release=release()
    )
    released = decide(order(**TO_RELEASE), seen, NOW)
    assert orders(released) == ["create digits-1", "create digits-2", "announce Released"]
    assert (told(released).artifact, told(released).plan_digest) == (CANDIDATE, PLAN)
    assert released.measured == (("compress", 60.0), ("evaluate", 15.0))


def test_evaluate_goes_on_though_the_compress_batch_job_was_deleted() -> None:
    seen = advanced(
        evaluating(), decide(order(), evaluating(), NOW), compress=stage("compress"), evaluate=stage("evaluate")
    )
    decision = decide(order(), seen, NOW)
    assert orders(decision) == ["create one-evaluate"]
    assert asked(decision).compression_peak_memory_bytes == PEAK


@pytest.mark.parametrize(
    ("lost", "phase", "reason", "verdict"),
    [
        (3, "Succeeded", "GatePassed", "Pass"),
        (36, "Inconclusive", "GateInconclusive", "Inconclusive"),
        (400, "Rejected", "GateFailed", "Fail"),
    ],
)
def test_the_verdict_ends_a_job_without_a_release(lost: int, phase: str, reason: str, verdict: str) -> None:
    decision = decide(order(), judged(lost), NOW)
    assert (told(decision).phase, told(decision).verdict) == (phase, verdict)
    good = verdict == "Pass"
    assert conditions(decision)["Ready"] == ("True" if good else "False", reason)
    assert conditions(decision)["Stalled"][0] == ("False" if good else "True")
    assert ("Complete" in conditions(decision)) is good
    assert ("Failed" in conditions(decision)) is not good
    assert decision.verdict == verdict
    assert orders(decision) == ([] if good else [f"announce {reason}"])


@pytest.mark.parametrize("lost", [36, 400])
def test_no_verdict_but_pass_makes_a_revision(lost: int) -> None:
    decision = decide(order(**TO_RELEASE), judged(lost, release=release()), NOW)
    assert not [word for word in orders(decision) if word.startswith("create")]


def test_an_empty_release_gets_the_baseline_first() -> None:
    decision = decide(order(**TO_RELEASE), judged(release=release()), NOW)
    assert orders(decision) == ["create digits-1", "create digits-2", "announce Released"]
    assert told(decision).revision == 2


def test_a_verdict_takes_the_machine_along_that_it_rests_on() -> None:
    decision = decide(order(**TO_RELEASE), judged(release=release()), NOW)
    made = [action.manifest["spec"] for action in decision.actions if isinstance(action, Create)]
    machine = {"processor": "puppet", "instructionSets": ["avx2", "avx512_vnni"], "threads": 1, "runtime": "ort 1"}
    assert [spec["measuredOn"] for spec in made] == [machine, machine]
    assert told(decision).to_wire()["measuredOn"] == machine


@pytest.mark.parametrize(
    ("view", "number"),
    [
        (release(revision(1, "baseline")), 2),
        (release(revision(4, "x")), 5),
        (release(revision(4, "x"), latestRevision=9), 10),
        (release(latestRevision=3), 4),
    ],
)
def test_the_number_is_above_all_that_were_ever_given(view: Any, number: int) -> None:
    decision = decide(order(**TO_RELEASE), judged(release=view), NOW)
    assert orders(decision) == [f"create digits-{number}", "announce Released"]


def test_a_revision_that_the_job_made_before_a_crash_is_found_again() -> None:
    made = revision(2, "candidate", job_uid=UID)
    decision = decide(order(**TO_RELEASE), judged(release=release(revision(1, "baseline"), made)), NOW)
    assert orders(decision) == ["announce Released"]
    assert told(decision).revision == 2


def test_a_missing_release_is_waited_for_with_the_verdict_kept() -> None:
    decision = decide(order(**TO_RELEASE), judged(), NOW)
    assert told(decision).phase == "Releasing"
    assert conditions(decision)["Released"] == ("False", "ReleaseNotFound")
    assert conditions(decision)["Reconciling"] == ("True", "ReleaseNotFound")
    later = advanced(judged(), decision, report=None, release=release())
    again = decide(order(**TO_RELEASE, activeDeadlineSeconds=1), later, NOW + timedelta(days=1))
    assert orders(again) == ["create digits-1", "create digits-2", "announce Released"]
    assert again.verdict is None


def test_a_rejected_digest_is_not_released() -> None:
    rejected = {"digest": CANDIDATE.digest, "revision": 7, "reason": "x", "message": "", "time": format_time(NOW)}
    decision = decide(order(**TO_RELEASE), judged(release=release(rejected=[rejected])), NOW)
    assert conditions(decision)["Released"] == ("False", "DigestRejected")
    assert orders(decision) == ["announce DigestRejected"]


def test_suspend_before_the_start_makes_nothing() -> None:
    decision = decide(order(suspend=True), snapshot(), NOW)
    assert orders(decision) == []
    assert conditions(decision)["Suspended"] == ("True", "Suspended")


def test_suspend_stops_what_runs_and_resume_wakes_it() -> None:
    stopped = decide(order(suspend=True), started(), NOW)
    assert orders(stopped) == ["patch one-compress"]
    asleep = advanced(started(), stopped, compress=stage("compress", ACTIVE, suspended=True))
    assert orders(decide(order(suspend=True), asleep, NOW)) == []
    awake = decide(order(), asleep, NOW)
    assert orders(awake) == ["patch one-compress"]
    assert conditions(awake)["Suspended"] == ("False", "Resumed")


def test_the_deadline_ends_the_job_before_its_children_are_deleted() -> None:
    decision = decide(order(activeDeadlineSeconds=60), started(), NOW + timedelta(seconds=61))
    assert conditions(decision)["Failed"] == ("True", "DeadlineExceeded")
    assert [type(action).__name__ for action in decision.actions] == ["Announce"]
    assert orders(decision)[-1] == "delete one-compress"


def test_the_deadline_wakes_the_job_and_counts_anew_after_a_resume() -> None:
    limited = order(activeDeadlineSeconds=10)
    assert decide(limited, started(), NOW + timedelta(seconds=6)).again_after_seconds == 4
    resumed = advanced(started(), decide(order(suspend=True, activeDeadlineSeconds=10), started(), NOW))
    again = advanced(resumed, decide(limited, resumed, NOW + timedelta(hours=1)))
    later = decide(limited, again, NOW + timedelta(hours=1, seconds=4))
    assert later.again_after_seconds == 6


def test_ttl_deletes_the_job_when_it_is_due_and_not_before() -> None:
    kept = order(ttlSecondsAfterFinished=100)
    end = decide(kept, judged(), NOW)
    assert end.again_after_seconds == 100
    over = advanced(judged(), end)
    assert decide(kept, over, NOW + timedelta(seconds=40)).again_after_seconds == 60
    assert orders(decide(kept, over, NOW + timedelta(seconds=100))) == ["delete one"]
    assert orders(decide(order(), over, NOW + timedelta(days=999))) == []


def test_an_ended_job_stays_ended_whatever_is_observed() -> None:
    over = advanced(judged(400), decide(order(), judged(400), NOW))
    fresh = advanced(over, decide(order(), over, NOW), compress=stage("compress"), evaluate=stage("evaluate"))
    decision = decide(order(), fresh, NOW + timedelta(days=1))
    assert orders(decision) == []
    assert decision.status == over.status.to_wire()


def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    assert orders(decide(order(), snapshot(deleting=True), NOW)) == []


def test_compress_never_mounts_evaluation_data() -> None:
    manifest = decide(order(), snapshot(), NOW).actions[1].manifest  # type: ignore[union-attr]
    paths = [mount["mountPath"] for mount in manifest["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]]
    assert f"{names.CLAIMS_DIRECTORY}/data/train.npz" in paths
    assert not [path for path in paths if "test.npz" in path or path == f"{names.CLAIMS_DIRECTORY}/data"]


def test_compress_mounts_the_teacher_that_a_step_names() -> None:
    teacher = {"uri": "pvc://other/large", "architecture": {"factory": "a:b"}}
    steps = [{"distill": {"epochs": 1, "teacher": teacher}}]
    manifest = decide(order(steps=steps), snapshot(), NOW).actions[1].manifest  # type: ignore[union-attr]
    mounts = manifest["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    (mount,) = [mount for mount in mounts if mount["mountPath"] == f"{names.CLAIMS_DIRECTORY}/other/large"]
    assert mount["readOnly"] is True
