"""What every run of the benchmark asks for, and what its pretended pods answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from plimsoll_api import API_VERSION
from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.gates import Metric
from plimsoll_api.model import digest_of
from plimsoll_api.report import (
    PROGRESS_MARK,
    REPORT_MARK,
    DataProvenance,
    Environment,
    Flips,
    LatencyFigures,
    ModelFigures,
    Outcome,
    Progress,
    RatioInterval,
    Report,
    Summary,
)
from plimsoll_api.sources import Task

CLAIMS = ("models", "data")
IMAGE = "docker.io/plimsoll/job:bench"
_STORE = "pvc://models/out"
_SAMPLES = 10_000


def compression_job(name: str) -> dict[str, Any]:
    """Return the manifest of one job: prune, distill and quantize, with three gates, as the digits example has."""
    return {
        "apiVersion": API_VERSION,
        "kind": "CompressionJob",
        "metadata": {"name": name},
        "spec": {
            "model": {
                "uri": "pvc://models/digits-cnn",
                "architecture": {"factory": "plimsoll_job.zoo:digits_cnn"},
            },
            "task": "ImageClassification",
            "data": {
                "train": {"uri": "pvc://data/train.npz"},
                "calibration": {"uri": "pvc://data/calibration.npz", "samples": 256},
                "evaluation": {"uri": "pvc://data/test.npz"},
            },
            "steps": [
                {"prune": {"criterion": "Activation", "granularity": "Structured", "amount": "60%"}},
                {"distill": {"epochs": 20, "losses": [{"logits": {"temperature": 4}}]}},
                {"quantize": {"scheme": "Int8Static"}},
            ],
            "gates": [
                {"metric": "accuracy", "maxRegression": "2%", "confidence": "95%"},
                {"metric": "size", "minReduction": "72%"},
                {"metric": "latencyP50", "maxRatio": "1.0", "batchSize": 1},
            ],
            "output": {"uri": _STORE},
            "runtime": {"image": IMAGE, "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}},
        },
    }


@dataclass(frozen=True)
class Answers:
    """What the pods end with and print: the same for every job, so that they can be given beforehand."""

    compress_message: str
    evaluate_message: str
    log: str
    """In the format of container runtimes; the report is its last line."""


def answers() -> Answers:
    """Return answers that pass every gate of `compression_job`."""
    baseline = _artifact("baseline", 1_264_000)
    candidate = _artifact("candidate", 52_000)
    report = Report(
        task=Task.IMAGE_CLASSIFICATION,
        data=DataProvenance(uri="pvc://data/test.npz", digest=digest_of(b"test"), samples=_SAMPLES, classes=10),
        environment=Environment(
            processor="pretended", cores=2, threads=1, packages={"onnxruntime": "1.23.0"}, peak_memory_bytes=200 << 20
        ),
        baseline=_figures(baseline, accuracy=0.985, parameters=316_000, seconds=0.0004),
        candidate=_figures(candidate, accuracy=0.984, parameters=47_000, seconds=0.0002),
        flips=Flips(
            samples=_SAMPLES, both_right=9_820, right_to_wrong=30, wrong_to_right=20, both_wrong=130, changed=60
        ),
        ratios=[
            RatioInterval(
                metric=Metric.LATENCY_P50, batch_size=size, ratio=0.5, low=0.45, high=0.55, rounds=42, processes=6
            )
            for size in (1, 32)
        ],
    ).canonical_json()
    digest = digest_of(report)
    compress = Summary(
        outcome=Outcome.DONE, reason="Compressed", message="Done.", baseline=baseline, candidate=candidate
    )
    evaluate = Summary(
        outcome=Outcome.DONE,
        reason="Evaluated",
        message="Done.",
        report_uri=f"{_STORE}/reports/{digest.removeprefix('sha256:')}.json",
        report_digest=digest,
    )
    progress = Progress(stage="evaluate", percent=90, message="measuring")
    lines = (f"{PROGRESS_MARK} {_text(progress.to_wire())}", f"{REPORT_MARK} {report.decode()}")
    log = "".join(f"2026-01-01T00:00:00.000000000Z stdout F {line}\n" for line in lines)
    return Answers(_text(compress.to_wire()), _text(evaluate.to_wire()), log)


def _artifact(name: str, size_bytes: int) -> ArtifactRef:
    digest = digest_of(name.encode())
    uri = f"{_STORE}/artifacts/{digest.removeprefix('sha256:')}"
    return ArtifactRef(uri=uri, digest=digest, size_bytes=size_bytes)


def _figures(artifact: ArtifactRef, *, accuracy: float, parameters: int, seconds: float) -> ModelFigures:
    latency = [
        LatencyFigures(
            batch_size=size,
            p50_seconds=seconds * size**0.7,
            p95_seconds=1.2 * seconds * size**0.7,
            p99_seconds=1.5 * seconds * size**0.7,
            throughput_per_second=size**0.3 / seconds,
            runs=1200,
            processes=6,
        )
        for size in (1, 32)
    ]
    return ModelFigures(
        artifact=artifact,
        size_bytes=artifact.size_bytes,
        parameters=parameters,
        nonzero_parameters=parameters,
        macs=20 * parameters,
        not_finite=0,
        accuracy=accuracy,
        macro_f1=accuracy,
        latency=latency,
    )


def _text(wire: dict[str, Any]) -> str:
    return json.dumps(wire, separators=(",", ":"))
