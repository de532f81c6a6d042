"""What the pods of a job tell, made up but true to the contract."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.puppet import NODE_LABEL, Act

from plimsoll_api import API_VERSION, names
from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.gates import Metric
from plimsoll_api.model import canonical_json, digest_of
from plimsoll_api.plan import EvaluationRequest
from plimsoll_api.report import (
    PROGRESS_MARK,
    REPORT_MARK,
    DataProvenance,
    Environment,
    FallbackCheck,
    Flips,
    LatencyFigures,
    ModelFigures,
    Outcome,
    RatioInterval,
    Report,
    Summary,
)


def digest(text: str) -> str:
    """Return a digest that stands for the text."""
    return digest_of(text.encode())


def artifact(name: str, size: int) -> ArtifactRef:
    """Return an artifact that stands for the name."""
    return ArtifactRef(uri=f"pvc://models/out/artifacts/{name}", digest=digest(name), size_bytes=size)


def compression_job(name: str, node: str = "puppet", **spec: Any) -> dict[str, Any]:
    """Return a CompressionJob whose pods go to the puppet."""
    return {
        "apiVersion": API_VERSION,
        "kind": "CompressionJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "pvc://models/cnn", "architecture": {"factory": "plimsoll_job.zoo:digits_cnn"}},
            "task": "ImageClassification",
            "data": {
                "train": {"uri": "pvc://data/train.npz"},
                "calibration": {"uri": "pvc://data/calibration.npz"},
                "evaluation": {"uri": "pvc://data/test.npz"},
            },
            "steps": [
                {"prune": {"criterion": "Activation", "amount": "60%"}},
                {"distill": {"epochs": 1}},
                {"quantize": {"scheme": "Int8Static"}},
            ],
            "gates": [
                {"metric": "accuracy", "maxRegression": "2%"},
                {"metric": "size", "minReduction": "72%"},
            ],
            "output": {"uri": "pvc://models/out"},
            "runtime": {"nodeSelector": {NODE_LABEL: node}},
            **spec,
        },
    }


def model_release(name: str, **spec: Any) -> dict[str, Any]:
    """Return a ModelRelease."""
    return {"apiVersion": API_VERSION, "kind": "ModelRelease", "metadata": {"name": name}, "spec": spec}


def good_report(request: EvaluationRequest, lost: int = 3, *, intact: bool = True) -> Report:
    """Return a report in which the candidate answers `lost` of 2,000 samples wrong that the baseline answered right."""
    samples = 2000
    right = 1960

    def figures(ref: ArtifactRef, accuracy: float, seconds: float) -> ModelFigures:
        latency = LatencyFigures(
            batch_size=1,
            p50_seconds=seconds,
            p95_seconds=seconds * 1.2,
            p99_seconds=seconds * 1.4,
            throughput_per_second=1 / seconds,
            runs=1200,
            processes=6,
        )
        return ModelFigures(
            artifact=ref,
            size_bytes=ref.size_bytes,
            parameters=ref.size_bytes // 4,
            nonzero_parameters=ref.size_bytes // 4,
            macs=ref.size_bytes,
            not_finite=0,
            accuracy=accuracy,
            macro_f1=accuracy,
            latency=[latency],
        )

    fallback = None
    if request.fallback:
        message = "whole" if intact else "manifest.json is cut short"
        fallback = FallbackCheck(digest=request.fallback.digest, intact=intact, message=message)
    return Report(
        task=request.task,
        data=DataProvenance(uri=request.data.uri, digest=digest(request.data.uri), samples=samples, classes=10),
        environment=Environment(
            processor="puppet",
            instruction_sets=["avx2", "avx512_vnni"],
            runtime="ort 1",
            cores=2,
            threads=1,
            packages={},
            peak_memory_bytes=1 << 28,
        ),
        baseline=figures(request.baseline, right / samples, 0.002),
        candidate=figures(request.candidate, (right - lost) / samples, 0.001),
        flips=Flips(
            samples=samples,
            both_right=right - lost,
            right_to_wrong=lost,
            wrong_to_right=0,
            both_wrong=samples - right,
            changed=lost,
        ),
        ratios=[
            RatioInterval(
                metric=Metric.LATENCY_P50, batch_size=1, ratio=0.5, low=0.45, high=0.55, rounds=42, processes=6
            )
        ],
        fallback=fallback,
    )


def request_of(pod: dict[str, Any]) -> EvaluationRequest:
    """Return what the pod is asked to measure."""
    variables = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}
    return EvaluationRequest.model_validate_json(variables[names.REQUEST_VARIABLE])


def compressed(job: str, candidate: str | None = None) -> Act:
    """Return a compression that went well."""
    summary = Summary(
        outcome=Outcome.DONE,
        reason="Done",
        message="compressed",
        baseline=artifact("baseline", 1_000_000),
        candidate=artifact(candidate or f"candidate-{job}", 60_000),
    )
    progress = f'{PROGRESS_MARK} {{"stage": "export", "percent": 100}}\n'
    return Act(message=json.dumps(summary.to_wire()), log=f"working\n{progress}")


def measured(report: Report, *, split: int | None = None, digest: str | None = None) -> Act:
    """Return an evaluation that ended with this report; `split` breaks its line as container runtimes do."""
    content = canonical_json(report.to_wire())
    true_digest = digest_of(content)
    uri = f"pvc://models/out/reports/{true_digest[7:]}.json"
    summary = Summary(
        outcome=Outcome.DONE,
        reason="Done",
        message="measured",
        report_uri=uri,
        report_digest=digest or true_digest,
    )
    line = f"{REPORT_MARK} {content.decode()}"
    if split:
        line = "\n".join(line[start : start + split] for start in range(0, len(line), split))
    return Act(message=json.dumps(summary.to_wire()), log=f"measuring\n{line}\n")


def went_wrong(message: str, reason: str = "ModelMissing") -> Act:
    """Return a request that the pod refuses."""
    summary = Summary(outcome=Outcome.REQUEST_WRONG, reason=reason, message=message)
    return Act(exit_code=64, message=json.dumps(summary.to_wire()))


def stage_of(pod: dict[str, Any]) -> str:
    """Return the stage that the pod carries out."""
    stage: str = pod["metadata"]["labels"][names.LABEL_STAGE]
    return stage


def job_of(pod: dict[str, Any]) -> str:
    """Return the CompressionJob that the pod works for; empty for a release's."""
    return str(pod["metadata"]["labels"].get(names.LABEL_JOB, ""))


def all_well(pod: dict[str, Any]) -> Act:
    """Return what a pod does when all goes well."""
    if stage_of(pod) == names.STAGE_COMPRESS:
        return compressed(job_of(pod))
    return measured(good_report(request_of(pod)))


def evaluated(act_of_evaluate: Any) -> Any:
    """Return the script in which compress goes well and evaluate does this."""

    def script(pod: dict[str, Any]) -> Act:
        if stage_of(pod) == "compress":
            return all_well(pod)
        act: Act = act_of_evaluate(pod)
        return act

    return script
