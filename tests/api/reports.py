"""Reports for tests: one that keeps every limit, and what is changed in it."""

from __future__ import annotations

from typing import Any

from plimsoll_api.gate import judge
from plimsoll_api.gates import Gate, Metric
from plimsoll_api.report import Report
from plimsoll_api.verdict import Check, Verdict

DIGESTS = {"baseline": "sha256:" + "b" * 64, "candidate": "sha256:" + "c" * 64}


def latency(batch_size: int, seconds: float, throughput: float) -> dict[str, Any]:
    return {
        "batch_size": batch_size,
        "p50_seconds": seconds,
        "p95_seconds": seconds * 1.1,
        "p99_seconds": seconds * 1.3,
        "throughput_per_second": throughput,
        "runs": 1200,
        "processes": 6,
    }


def ratio(metric: Metric, batch_size: int, value: float, low: float, high: float) -> dict[str, Any]:
    return {
        "metric": metric,
        "batch_size": batch_size,
        "ratio": value,
        "low": low,
        "high": high,
        "rounds": 42,
        "processes": 6,
    }


def model(role: str, *, size: int, accuracy: float, macro_f1: float, speed: float) -> dict[str, Any]:
    return {
        "artifact": {"uri": f"pvc://models/{role}", "digest": DIGESTS[role], "size_bytes": size},
        "size_bytes": size,
        "parameters": size // 4,
        "nonzero_parameters": size // 4,
        "macs": size * 10,
        "not_finite": 0,
        "accuracy": accuracy,
        "macro_f1": macro_f1,
        "latency": [latency(1, 0.001 / speed, 1000 * speed), latency(32, 0.02 / speed, 1600 * speed)],
    }


def passing() -> dict[str, Any]:
    """Return a report, by field names, that passes every gate of GATES."""
    ratios = [
        ratio(metric, batch_size, 0.5, 0.48, 0.53)
        for metric in (Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.LATENCY_P99)
        for batch_size in (1, 32)
    ]
    ratios += [ratio(Metric.THROUGHPUT, batch_size, 2.0, 1.9, 2.1) for batch_size in (1, 32)]
    return {
        "task": "ImageClassification",
        "data": {"uri": "pvc://data/test.npz", "digest": "sha256:" + "d" * 64, "samples": 2000, "classes": 10},
        "environment": {
            "processor": "test",
            "cores": 2,
            "threads": 1,
            "packages": {},
            "peak_memory_bytes": 1,
        },
        "baseline": model("baseline", size=1_000_000, accuracy=0.976, macro_f1=0.975, speed=1),
        "candidate": model("candidate", size=40_000, accuracy=0.974, macro_f1=0.972, speed=2),
        "flips": {
            "samples": 2000,
            "both_right": 1940,
            "right_to_wrong": 12,
            "wrong_to_right": 8,
            "both_wrong": 40,
            "changed": 25,
        },
        "ratios": ratios,
    }


def report(**changes: Any) -> Report:
    """Return the passing report with fields replaced."""
    return Report.model_validate(passing() | changes)


def models(**fields: tuple[Any, Any]) -> Report:
    """Return the passing report with (baseline, candidate) figures replaced."""
    parts = passing()
    for name, (baseline, candidate) in fields.items():
        parts["baseline"][name], parts["candidate"][name] = baseline, candidate
    return Report.model_validate(parts)


def with_flips(both_right: int, wrong_to_right: int, right_to_wrong: int, both_wrong: int) -> Report:
    samples = both_right + wrong_to_right + right_to_wrong + both_wrong
    return report(
        data=passing()["data"] | {"samples": samples},
        flips={
            "samples": samples,
            "both_right": both_right,
            "wrong_to_right": wrong_to_right,
            "right_to_wrong": right_to_wrong,
            "both_wrong": both_wrong,
            "changed": wrong_to_right + right_to_wrong,
        },
    )


def gate(metric: str, **bounds: Any) -> Gate:
    return Gate.model_validate({"metric": metric} | bounds)


#: Every kind of limit, all kept by the passing report.
GATES = [
    gate("accuracy", max_regression="2%"),
    gate("accuracy", min="96%"),
    gate("macroF1", max_regression="1%"),
    gate("macroF1", min="97%"),
    gate("size", min_reduction="95%"),
    gate("size", max_ratio="0.05"),
    gate("parameters", min_reduction="95%"),
    gate("parameters", max_ratio="0.05"),
    gate("macs", min_reduction="95%"),
    gate("macs", max_ratio="0.05"),
    gate("latencyP50", max_ratio="1.0"),
    gate("latencyP50", max="1ms", batch_size=1),
    gate("latencyP95", max_ratio="1.0", batch_size=1),
    gate("latencyP95", max="20ms", batch_size=32),
    gate("latencyP99", max_ratio="1.0", batch_size=32),
    gate("latencyP99", max="1ms"),
    gate("throughput", min_ratio="1.5"),
    gate("notFinite", max_share="1%"),
]


def check(measured: Report | None, limit: Gate) -> Check:
    # The others are of what is judged without a limit, too.
    return judge(measured, [limit]).checks[0]


def verdict(measured: Report | None, limit: Gate) -> Verdict:
    return check(measured, limit).verdict
