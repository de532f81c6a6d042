"""The verdict on a report, and what it means for the job."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from plimsoll_api import gate, names
from plimsoll_api.reasons import ConditionType, Reason
from plimsoll_api.report import Report
from plimsoll_api.status import ReportRef
from plimsoll_api.summary import summarize
from plimsoll_api.verdict import Judgement, Verdict
from plimsoll_operator.actions import Decision
from plimsoll_operator.conditions import Say
from plimsoll_operator.job import releasing, tell
from plimsoll_operator.job.snapshot import JobSnapshot, Order
from plimsoll_operator.job.tell import Phase

REASONS = {
    Verdict.PASS: Reason.GATE_PASSED,
    Verdict.FAIL: Reason.GATE_FAILED,
    Verdict.INCONCLUSIVE: Reason.GATE_INCONCLUSIVE,
}


def decide_verdict(order: Order, snapshot: JobSnapshot, now: datetime, report: Report, ref: ReportRef) -> Decision:
    """Judge the report by the spec's gates; a pass goes on to the release, all else ends the job."""
    seconds = snapshot.evaluate.seconds
    measured = ((names.STAGE_EVALUATE, seconds),) if seconds is not None else ()
    judgement = gate.judge(report, order.spec.gates, accept_baseline=order.spec.evaluation.accept_baseline)
    stranger = _stranger(snapshot, report, judgement.verdict)
    if stranger:
        return replace(tell.failed(snapshot, now, Reason.REPORT_UNREADABLE, stranger), measured=measured)
    facts = {
        "verdict": judgement.verdict,
        "checks": judgement.checks,
        "summary": summarize(report),
        "report": ref,
        "measured_on": report.environment.machine,
    }
    says = [_gate_condition(judgement)]
    if judgement.verdict is Verdict.PASS:
        judged = replace(snapshot, status=tell.updated(snapshot, now, says, **facts))
        decision = releasing.decide_release(order, judged, now)
    else:
        phase = Phase.REJECTED if judgement.verdict is Verdict.FAIL else Phase.INCONCLUSIVE
        reason = REASONS[judgement.verdict]
        decision = tell.failed(snapshot, now, reason, judgement.message, phase=phase, also=says, **facts)
    return replace(decision, measured=measured, verdict=judgement.verdict.value)


def _stranger(snapshot: JobSnapshot, report: Report, verdict: Verdict) -> str | None:
    """Say what is wrong when the report is about other artifacts than those that compress made, or passes unnamed."""
    for name, wanted, measured in (
        ("baseline", snapshot.status.baseline, report.baseline),
        ("candidate", snapshot.status.artifact, report.candidate),
    ):
        if measured is None and verdict is Verdict.PASS:
            return f"the report does not say which {name} it is about"
        if measured is not None and wanted is not None and wanted.digest != measured.artifact.digest:
            return f"the report's {name} is {measured.artifact.digest}, not {wanted.digest} that was to be measured"
    return None


def _gate_condition(judgement: Judgement) -> Say:
    passed = judgement.verdict is Verdict.PASS
    return Say(ConditionType.GATE_PASSED, passed, REASONS[judgement.verdict], judgement.message)
