"""The operator's benchmark: what it asks for succeeds, and what it counts is counted right."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from bench.operator import audit, figures, kwok, table, workload
from bench.operator.load import Observed
from bench.operator.usage import Usage

from plimsoll_api.gate import judge
from plimsoll_api.model import digest_of
from plimsoll_api.report import MAX_SUMMARY_BYTES, REPORT_MARK, Report, Summary
from plimsoll_api.spec import CompressionJobSpec
from plimsoll_api.verdict import Verdict


def measured(name: str, *, cpu_seconds: float = 1.0) -> figures.Figures:
    return figures.Figures(
        name=name,
        jobs=10,
        ended=10,
        phases=Counter({"Succeeded": 10}),
        seconds=5.0,
        startup_seconds=1.0,
        startup_cpu_seconds=1.0,
        usage=Usage(cpu_seconds=cpu_seconds, peak_rss_bytes=100 << 20),
        writes=Counter({"create jobs": 20, "patch compressionjobs/status": 30}),
        other_writes=Counter(),
        all_writes=200,
        stretches={},
        control_plane={
            program: Usage(1.0, 1)
            for program in ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "kwok")
        },
    )


def test_the_answers_pass_the_gates_of_the_jobs() -> None:
    spec = CompressionJobSpec.model_validate(workload.compression_job("one")["spec"])
    answers = workload.answers()
    text = answers.log.splitlines()[-1].partition(f"{REPORT_MARK} ")[2]
    judgement = judge(Report.model_validate_json(text), spec.gates)
    assert judgement.verdict is Verdict.PASS, judgement.message
    assert Summary.model_validate_json(answers.evaluate_message).report_digest == digest_of(text.encode())


def test_the_messages_fit_and_no_template_begins_in_them() -> None:
    answers = workload.answers()
    for message in (answers.compress_message, answers.evaluate_message):
        assert len(message.encode()) <= MAX_SUMMARY_BYTES
        assert "{{" not in message


def test_kwok_replaces_its_own_stage_and_serves_the_log(tmp_path: Path) -> None:
    file = kwok.write_config(tmp_path, workload.answers())
    text = file.read_text()
    assert "name: pod-complete" in text
    assert str(tmp_path / "pod.log") in text


def test_writes_are_counted_by_kind_and_refused_ones_apart(tmp_path: Path) -> None:
    def event(verb: str, resource: str, name: str, code: int, *, user: str = "us", subresource: str = "") -> str:
        target = {"resource": resource, "subresource": subresource, "namespace": "n", "name": name}
        return json.dumps({
            "user": {"username": user}, "verb": verb, "objectRef": target, "responseStatus": {"code": code},
            "stageTimestamp": "2026-01-01T00:00:01.500000Z",
        })  # fmt: skip

    log = tmp_path / "audit.log"
    log.write_text(
        "\n".join([
            event("create", "compressionjobs", "a", 201, user="admin"),
            event("create", "configmaps", "a-plan", 201),
            event("create", "jobs", "a-compress", 409),
            event("patch", "compressionjobs", "a", 200, subresource="status"),
        ])
        + "\n"
    )  # fmt: skip
    writes = audit.read(log)
    assert audit.writes_by_kind(writes, "us") == {
        "create configmaps": 1,
        "create jobs (409)": 1,
        "patch compressionjobs/status": 1,
    }
    times = audit.milestones(writes, ["a"])["a"]
    assert times.plan == times.job
    assert times.compress is None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_quantile_is_the_smallest_value_that_suffices(share: float, expected: int) -> None:
    assert figures.quantile(range(1, 101), share) == expected


def test_stretches_are_taken_over_the_jobs_that_went_through_them() -> None:
    times = {"a": audit.Milestones(1.0, 2.0, 3.0, 5.0), "b": audit.Milestones(1.0, None, None, None)}
    found = figures.stretches(times, Observed(ended={"a": 9.0}))
    assert found["create → end"] == figures.Quantiles(8.0, 8.0)
    assert found["create → plan"].p99 == 1.0


def test_the_table_stands_between_its_markers_and_may_be_written_again(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\nbefore\n")
    table.write_markdown([measured("ours"), measured("naive", cpu_seconds=2.0)], page)
    once = page.read_text()
    assert "| operator CPU a job, ms | 100.0 | 200.0 | 0.50 |" in once
    page.write_text(once + "after\n")
    table.write_markdown([measured("ours")], page)
    again = page.read_text()
    assert again.startswith("# Benchmarks\n\nbefore\n")
    assert again.endswith("after\n")
    assert "200.0" not in again
