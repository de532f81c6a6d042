"""Decisions about CompressionJobs that go wrong: whose fault it is, in which words, and what is tried again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.operator.worlds import (
    CANDIDATE,
    NOW,
    PLAN,
    advanced,
    compressed_stage,
    conditions,
    evaluated_stage,
    evaluating,
    failed_stage,
    judged,
    order,
    orders,
    report,
    snapshot,
    stage,
    started,
    told,
)

from plimsoll_api.report import Outcome
from plimsoll_operator.actions import Refusal
from plimsoll_operator.job.decide import decide
from plimsoll_operator.job.snapshot import JobSnapshot
from plimsoll_operator.reports import ReportReading
from plimsoll_operator.stage import Problem, StageState


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome.REQUEST_WRONG, "RequestWrong"),
        (Outcome.INTERNAL_ERROR, "InternalError"),
        (Outcome.TRY_AGAIN, "StageFailed"),
        (None, "StageFailed"),
    ],
)
@pytest.mark.parametrize("name", ["compress", "evaluate"])
def test_a_failed_stage_ends_the_job_in_its_own_words(name: str, outcome: Outcome | None, reason: str) -> None:
    broken = failed_stage(name, outcome=outcome)
    seen = advanced(evaluating(), decide(order(), evaluating(), NOW), evaluate=broken) if name == "evaluate" else None
    decision = decide(order(), seen or advanced(started(), decide(order(), started(), NOW), compress=broken), NOW)
    assert conditions(decision)["Failed"] == ("True", reason)
    assert "it needs more" in next(
        item["message"] for item in decision.status["conditions"] if item["type"] == "Failed"
    )


def test_a_result_that_went_with_its_pod_is_made_again() -> None:
    seen = advanced(started(), decide(order(), started(), NOW), compress=stage("compress", StageState.LOST))
    assert orders(decide(order(), seen, NOW)) == ["delete one-compress"]


def test_a_report_that_cannot_be_read_is_printed_again_once() -> None:
    unread = ReportReading(problem="the log holds no report")
    seen = advanced(evaluating(), decide(order(), evaluating(), NOW), evaluate=evaluated_stage(), report=unread)
    first = decide(order(), seen, NOW)
    assert orders(first) == ["create one-print-report"]
    waiting = advanced(seen, first, print_report=stage("print-report", StageState.ACTIVE))
    assert orders(decide(order(), waiting, NOW)) == []
    printed = advanced(seen, first, print_report=stage("print-report", StageState.DONE))
    assert conditions(decide(order(), printed, NOW))["Failed"] == ("True", "ReportUnreadable")


def test_a_report_on_other_artifacts_is_not_judged() -> None:
    seen = judged()
    other = seen.status.model_copy(update={"artifact": CANDIDATE.model_copy(update={"digest": PLAN})})
    decision = decide(order(), JobSnapshot(**{**fields(seen), "status": other}), NOW)
    assert conditions(decision)["Failed"] == ("True", "ReportUnreadable")


def test_a_report_that_names_no_artifact_never_passes() -> None:
    passing = [{"metric": "latencyP50", "maxRatio": "1.0"}]
    unnamed = report().model_copy(update={"candidate": None})
    seen = advanced(
        evaluating(), decide(order(), evaluating(), NOW), evaluate=evaluated_stage(), report=ReportReading(unnamed)
    )
    assert conditions(decide(order(gates=passing), seen, NOW))["Failed"][0] == "True"


@pytest.mark.parametrize("uri", ["pvc://secrets/x", "pvc://models/other", "pvc://models/out/../x", "s3://b/x"])
def test_a_pod_cannot_have_another_path_mounted(uri: str) -> None:
    made = compressed_stage()
    assert made.summary is not None
    stray = made.summary.model_copy(update={"candidate": CANDIDATE.model_copy(update={"uri": uri})})
    seen = advanced(started(), decide(order(), started(), NOW), compress=replace(made, summary=stray))
    assert conditions(decide(order(), seen, NOW))["Failed"] == ("True", "StageFailed")
    reported = advanced(evaluating(), decide(order(), evaluating(), NOW), evaluate=evaluated_stage(report_uri=uri))
    assert conditions(decide(order(), reported, NOW))["Failed"] == ("True", "ReportUnreadable")


def fields(seen: JobSnapshot) -> dict[str, Any]:
    return {name: getattr(seen, name) for name in seen.__slots__}


def test_a_pod_that_cannot_start_is_told_and_a_hopeless_one_ends_the_job() -> None:
    def seen(*, hopeless: bool) -> JobSnapshot:
        problem = Problem("CreateContainerConfigError", "no such subPath", hopeless=hopeless)
        return advanced(
            started(), decide(order(), started(), NOW), compress=stage("compress", StageState.ACTIVE, problem=problem)
        )

    waits = decide(order(), seen(hopeless=False), NOW)
    assert conditions(waits)["Reconciling"] == ("True", "PodCannotStart")
    assert orders(waits) == []
    ends = decide(order(), seen(hopeless=True), NOW)
    assert conditions(ends)["Failed"] == ("True", "PodCannotStart")
    assert orders(ends) == ["announce PodCannotStart", "delete one-compress"]


def test_a_child_that_the_api_server_finds_invalid_ends_the_job_in_its_words() -> None:
    decision = decide(order(), replace(snapshot(), refused=Refusal("requests: more than the limit", True)), NOW)
    assert conditions(decision)["Failed"] == ("True", "RequestWrong")
    assert orders(decision) == ["announce RequestWrong"]
    assert "more than the limit" in decision.actions[0].message  # type: ignore[union-attr]


def test_a_child_that_is_not_allowed_is_told_and_waited_for() -> None:
    decision = decide(order(), replace(started(), refused=Refusal("exceeded quota", False)), NOW)
    assert conditions(decision)["Reconciling"] == ("True", "NotAllowed")
    assert conditions(decision)["Stalled"][0] == "False"
    assert (told(decision).phase, decision.again_after_seconds) == ("Compressing", 60.0)
    assert orders(decision) == []


@pytest.mark.parametrize("where", ["model", "output"])
def test_evaluation_data_below_a_mounted_path_is_refused(where: str) -> None:
    spec: dict[str, Any] = {}
    if where == "model":
        spec["model"] = {"uri": "pvc://data", "architecture": {"factory": "a:b"}}
    else:
        spec["output"] = {"uri": "pvc://data"}
    decision = decide(order(**spec), snapshot(), NOW)
    assert conditions(decision)["Failed"] == ("True", "RequestWrong")
    assert orders(decision) == ["announce RequestWrong"]
