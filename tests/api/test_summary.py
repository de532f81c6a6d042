"""The figures that people look at first."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.api.reports import latency, passing, ratio, report

from plimsoll_api.gates import Metric
from plimsoll_api.report import Report
from plimsoll_api.status import JobSummary
from plimsoll_api.summary import summarize


def summary(**changes: Any) -> JobSummary:
    found = summarize(report(**changes))
    assert found is not None
    return found


def test_the_figures_of_a_report() -> None:
    found = summary().to_wire()
    assert found.pop("quality") == "accuracy -0.20pp"
    assert {name: figures["change"] for name, figures in found.items()} == {
        "accuracy": "-0.20pp",
        "macroF1": "-0.30pp",
        "size": "-96.0%",
        "parameters": "-96.0%",
        "macs": "-96.0%",
        "latencyP50": "0.50x",
        "latencyP95": "0.50x",
        "throughput": "2.00x",
    }
    size, accuracy = summary().size, summary().accuracy
    assert size is not None
    assert accuracy is not None
    assert (size.baseline, size.candidate) == ("1000000", "40000")
    assert (accuracy.baseline, accuracy.candidate) == ("0.9760", "0.9740")


def test_latency_is_at_the_first_batch_size_and_throughput_at_the_last() -> None:
    found = summary()
    assert found.latency_p50 is not None
    assert found.throughput is not None
    assert found.latency_p50.baseline == "0.001"
    assert found.throughput.baseline == "1600"


def test_a_ratio_is_that_of_the_interleaved_rounds_where_there_is_one() -> None:
    assert summary(ratios=[ratio(Metric.LATENCY_P50, 1, 0.42, 0.4, 0.5)]).latency_p50.change == "0.42x"  # type: ignore[union-attr]
    assert summary(ratios=[ratio(Metric.LATENCY_P50, 32, 0.42, 0.4, 0.5)]).latency_p50.change == "0.50x"  # type: ignore[union-attr]


@pytest.mark.parametrize("role", ["baseline", "candidate"])
def test_without_both_models_there_is_no_summary(role: str) -> None:
    parts = passing()
    del parts[role]
    assert summarize(Report.model_validate(parts)) is None


def test_what_was_not_measured_is_unset() -> None:
    parts = passing()
    parts["candidate"]["latency"] = []
    parts["candidate"]["accuracy"] = math.nan
    parts["baseline"]["macs"] = 0
    found = summarize(Report.model_validate(parts))
    assert found is not None
    unset = {name for name in type(found).model_fields if getattr(found, name) is None}
    others = {"rmse", "mae", "r2", "cosine_similarity", "neighbour_overlap", "rank_correlation"}
    assert unset == {"quality", "accuracy", "macs", "latency_p50", "latency_p95", "throughput"} | others


def test_different_batch_sizes_are_not_compared() -> None:
    parts = passing()
    parts["candidate"]["latency"] = [latency(8, 0.001, 1000), latency(32, 0.001, 1000)]
    found = summarize(Report.model_validate(parts))
    assert found is not None
    assert found.latency_p50 is None
    assert found.throughput is not None


def test_no_change_has_no_sign() -> None:
    parts = passing()
    parts["candidate"] |= {"accuracy": 0.976, "size_bytes": 1_000_000}
    found = summarize(Report.model_validate(parts))
    assert found is not None
    assert found.accuracy is not None
    assert found.size is not None
    assert (found.accuracy.change, found.size.change) == ("0.00pp", "0.0%")


def test_an_infinite_ratio_is_no_figure() -> None:
    found = summary(ratios=[ratio(Metric.LATENCY_P50, 1, math.inf, 0.4, 0.5)])
    assert found.latency_p50 is None


def of_task(task: str, baseline: dict[str, float], candidate: dict[str, float]) -> dict[str, Any]:
    parts = passing() | {"task": task}
    for role, figures in (("baseline", baseline), ("candidate", candidate)):
        for name in ("accuracy", "macro_f1"):
            del parts[role][name]
        parts[role] |= figures
    found = summarize(Report.model_validate(parts))
    assert found is not None
    return found.to_wire()


def test_errors_change_by_percent_and_r2_by_its_difference() -> None:
    found = of_task("Regression", {"rmse": 2.0, "mae": 0, "r2": 0.9}, {"rmse": 2.1, "mae": 0.25, "r2": 0.88})
    assert found["quality"] == "rmse +5.0%"
    assert found["rmse"] == {"baseline": "2", "candidate": "2.1", "change": "+5.0%"}
    assert found["mae"]["change"] == "+0.25"
    assert found["r2"] == {"baseline": "0.9000", "candidate": "0.8800", "change": "-0.0200"}
    assert "accuracy" not in found


def test_similarities_are_told_against_one() -> None:
    found = of_task("Embedding", {"cosine_similarity": 1.0}, {"cosine_similarity": 0.9987})
    assert found["quality"] == "cosineSimilarity -0.0013"
    assert found["cosineSimilarity"] == {"baseline": "1.0000", "candidate": "0.9987", "change": "-0.0013"}
