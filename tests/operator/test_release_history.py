"""Histories of a release, made up by hypothesis: whatever happens, nothing unproved serves."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.integration.stories import digest, good_report
from tests.operator.worlds import IMAGE, NOW, RELEASE_UID, revision

from plimsoll_api import names
from plimsoll_api.plan import EvaluationRequest
from plimsoll_api.release import ModelReleaseSpec, ModelReleaseStatus, ReevaluationStatus
from plimsoll_api.report import Outcome, Summary
from plimsoll_operator.actions import Create, Delete, Patch
from plimsoll_operator.release.decide import decide
from plimsoll_operator.release.revisions import Revision
from plimsoll_operator.release.snapshot import ConfigView, ReleaseSnapshot
from plimsoll_operator.reports import ReportReading
from plimsoll_operator.stage import Problem, Stage, StageState

OFTEN = st.sampled_from([True, True, False])
LOST = {"Pass": 3, "Inconclusive": 36, "Fail": 400}


class ReleaseHistory(RuleBasedStateMachine):
    """A release in a cluster of dictionaries; between any two events the operator may look, or not."""

    @initialize(names=st.lists(st.sampled_from("abcd"), max_size=3))
    def begin(self, names: list[str]) -> None:
        self.spec = ModelReleaseSpec()
        self.status = ModelReleaseStatus()
        self.annotation: str | None = None
        self.revisions: dict[int, Revision] = {}
        self.config: dict[str, str] | None = None
        self.jobs: dict[str, EvaluationRequest] = {}
        self.stages: dict[str, Stage] = {}
        self.reading: ReportReading | None = None
        self.proved: set[str] = set()
        self.failed_on: dict[str, str] = {}
        self.wishes = 0
        self.judged: list[str] = []
        self.clock = NOW
        self.highest = 0
        self.said = ""
        for name in names:
            self.release_a_proved_candidate(name)
        self.settle()

    def snapshot(self) -> ReleaseSnapshot:
        running = self.status.reevaluation
        stage = None
        if running and running.completion_time is None:
            name = names.reevaluation_name("digits", running.request_digest)
            stage = self.stages.get(name, Stage(StageState.ABSENT, name))
        return ReleaseSnapshot(
            namespace="ns",
            name="digits",
            uid=RELEASE_UID,
            generation=1,
            deleting=False,
            reevaluate=self.annotation,
            status=self.status,
            revisions=tuple(self.revisions.values()),
            config=ConfigView("1", True, self.config) if self.config is not None else None,
            evaluate=stage,
            print_report=None,
            report=self.reading if stage and stage.state is StageState.DONE else None,
        )

    @rule(crash=st.integers(0, 4))
    def look_and_crash(self, crash: int) -> None:
        """Decide and perform, but crash after so many writes."""
        self.look(crash)

    @rule()
    def settle(self) -> None:
        """Leave the operator in peace for a while."""
        for _ in range(4):
            self.look()

    def look(self, crash: int | None = None) -> None:
        self.clock += timedelta(seconds=1)
        before = self.status
        decision = decide(self.spec, self.snapshot(), IMAGE, self.clock)
        writes: list[Any] = [*decision.actions, "status", *decision.afterwards]
        for write in writes[:crash]:
            self.write(write, decision.status)
        self.check_move(before)

    def write(self, write: Any, status: dict[str, Any]) -> None:
        if write == "status":
            self.status = ModelReleaseStatus.model_validate(status)
        elif isinstance(write, Create) and write.resource.kind == "Job":
            name = write.manifest["metadata"]["name"]
            container = write.manifest["spec"]["template"]["spec"]["containers"][0]
            text = next(entry["value"] for entry in container["env"] if entry["name"] == names.REQUEST_VARIABLE)
            self.jobs[name] = EvaluationRequest.model_validate_json(text)
            self.stages[name] = Stage(StageState.ACTIVE, name, uid=name)
        elif isinstance(write, Create):
            self.config = dict(write.manifest["data"])
        elif isinstance(write, Patch) and write.resource.kind == "ConfigMap":
            assert self.config is not None
            merged = self.config | write.body["data"]
            self.config = {key: text for key, text in merged.items() if text is not None}
        elif isinstance(write, Delete):
            self.stages.pop(write.name, None)

    def check_move(self, before: ModelReleaseStatus) -> None:
        """The pointer goes down only by a rollback to verified bytes, a pin, or because what served is gone."""
        old, new = before.current_revision, self.status.current_revision
        rejected = {item.digest for item in self.status.rejected}
        if self.status.rollbacks > before.rollbacks:
            assert self.status.rollbacks == before.rollbacks + 1
            assert self.spec.pinned_revision is None
            assert self.said == "Fail"
            assert new is not None
            assert self.reading is not None
            assert self.reading.report is not None
            fallback = self.reading.report.fallback
            assert fallback is not None
            assert fallback.intact
            assert fallback.digest == self.revisions[new].digest
        ended = self.status.reevaluation
        if ended and ended.completion_time and ended != before.reevaluation:
            self.check_end(before, ended)
        if new is not None and old is not None and new < old and old in self.revisions:
            assert self.spec.pinned_revision is not None or self.revisions[old].digest in rejected

    def check_end(self, before: ModelReleaseStatus, ended: ReevaluationStatus) -> None:
        """A wish is judged once, as its pod measured; only a failure rejects, and a failure does."""
        assert ended.request_digest not in self.judged
        self.judged.append(ended.request_digest)
        grown = len(self.status.rejected) - len(before.rejected)
        if ended.verdict != "Fail":
            assert ended.verdict in (None, self.said)
            assert grown == 0
            return
        assert self.said == "Fail"
        measured = self.revisions[ended.revision].digest
        kept = ended.reason == "FallbackDamaged"
        assert (measured in {item.digest for item in self.status.rejected}) is not kept
        event("rolled back" if ended.reason == "RolledBack" else f"failed: {ended.reason}")
        if kept:
            assert self.spec.pinned_revision is None
            assert before.current_revision == ended.revision
            assert self.reading is not None
            assert self.reading.report is not None
            fallback = self.reading.report.fallback
            others = [revision for number, revision in self.revisions.items() if revision.digest != measured]
            assert others
            whole = fallback is not None and fallback.intact
            newest = max((item for item in others if item.digest not in self.no_good(before)), key=lambda x: x.number)
            assert not whole or (fallback is not None and fallback.digest != newest.digest)

    @staticmethod
    def no_good(status: ModelReleaseStatus) -> set[str]:
        return {item.digest for item in status.rejected}

    @rule(name=st.sampled_from("abcd"))
    def release_a_proved_candidate(self, name: str) -> None:
        """A job's gate passed: only then is there a revision."""
        if digest(name) in {item.digest for item in self.status.rejected}:
            return
        if not self.highest:
            self.highest = 1
            self.revisions[1] = revision(1, "baseline")
            self.proved.add(digest("baseline"))
        self.highest += 1
        self.revisions[self.highest] = revision(self.highest, name)
        self.proved.add(digest(name))

    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        """A person pins something, perhaps something that is not there, or unpins."""
        choice = data.draw(st.sampled_from([None, None, None, *self.revisions, 99]))
        self.spec = self.spec.model_copy(update={"pinned_revision": choice})

    @rule(data=st.data(), really=st.sampled_from([False, False, True]))
    def delete_a_revision(self, data: st.DataObject, really: bool) -> None:
        """A person deletes a revision."""
        if self.revisions and really:
            del self.revisions[data.draw(st.sampled_from(sorted(self.revisions)))]

    @rule()
    def wish(self) -> None:
        """A person asks for a re-evaluation."""
        self.wishes += 1
        self.annotation = f"wish-{self.wishes}"

    @rule(verdict=st.sampled_from(["Fail", "Fail", "Pass", "Inconclusive", "Error"]), intact=OFTEN)
    def wish_and_finish(self, verdict: str, intact: bool) -> None:
        """The same, and its pod ends before anything else happens; the operator has not seen it yet."""
        self.settle()
        self.wish()
        self.settle()
        self.finish(verdict, intact)

    @rule(verdict=st.sampled_from([*LOST, "Error"]), intact=OFTEN)
    def finish(self, verdict: str, intact: bool) -> None:
        """The pod of the running re-evaluation ends."""
        active = next((name for name, stage in self.stages.items() if stage.state is StageState.ACTIVE), None)
        if active is None:
            return
        self.said = verdict
        if verdict == "Error":
            problem = Problem("StageFailed", "out of memory")
            self.stages[active] = replace(self.stages[active], state=StageState.FAILED, problem=problem)
            return
        report = good_report(self.jobs[active], lost=LOST[verdict], intact=intact)
        summary = Summary(
            outcome=Outcome.DONE,
            reason="Done",
            message="",
            report_uri="pvc://models/out/reports/r",
            report_digest=digest("r"),
        )
        self.stages[active] = replace(self.stages[active], state=StageState.DONE, summary=summary)
        self.reading = ReportReading(report=report)

    @invariant()
    def nothing_unproved_serves(self) -> None:
        if getattr(self, "config", None):
            assert self.config is not None
            assert self.config["digest"] in self.proved

    @invariant()
    def a_rejected_digest_serves_only_by_a_pin_or_for_want_of_another(self) -> None:
        status = getattr(self, "status", None)
        if status is None or status.current_revision is None:
            return
        rejected = {item.digest for item in status.rejected}
        ready = next(item for item in status.conditions if item.type == "Ready")
        if status.current_digest in rejected:
            assert ready.reason in ("Pinned", "NothingToRollBackTo", "PinnedRevisionNotFound")

    def teardown(self) -> None:
        """Left in peace, the operator comes to rest, and the ConfigMap says what the status says."""
        if not hasattr(self, "status"):
            return
        for _ in range(6):
            self.look()
        if self.status.current_revision is not None:
            assert self.config is not None
            assert self.config["revision"] == str(self.status.current_revision)
            assert self.config["digest"] == self.status.current_digest


ReleaseHistory.TestCase.settings = settings(
    max_examples=int(os.environ.get("PLIMSOLL_HISTORIES", "150")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestReleaseHistory = ReleaseHistory.TestCase


def test_a_newer_revision_takes_over_while_the_old_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by 10,000 histories: the failed digest was not remembered, and the status told of a pointer that stays."""
    monkeypatch.setitem(globals(), "event", lambda _: None)
    history = ReleaseHistory()
    history.begin(["b"])
    history.wish()
    history.settle()
    history.finish("Fail", True)
    history.release_a_proved_candidate("a")
    history.settle()
    assert history.status.current_revision == 3
    assert history.status.rollbacks == 0
    assert [item.revision for item in history.status.rejected] == [2]
    assert history.status.reevaluation is not None
    assert history.status.reevaluation.reason == "ReevaluationFailed"
