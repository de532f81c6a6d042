"""A full status of each kind, as the operator writes it."""

from __future__ import annotations

from typing import Any

TIME = "2026-11-22T07:00:00Z"
DIGEST = "sha256:" + "c" * 64


def _condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": TIME,
        "observedGeneration": 1,
    }


JOB_STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Succeeded",
    "startTime": TIME,
    "completionTime": TIME,
    "planDigest": DIGEST,
    "conditions": [_condition("Ready", "True", "Released", "released as revision 2")],
    "progress": {"stage": "evaluate", "percent": 100, "message": "done", "lastUpdateTime": TIME},
    "summary": {
        "quality": "accuracy -0.22pp",
        "accuracy": {"baseline": "0.9762", "candidate": "0.9740", "change": "-0.22pp"},
        "size": {"baseline": "1000000", "candidate": "46000", "change": "-95.4%"},
        "latencyP95": {"baseline": "0.001", "candidate": "0.00041", "change": "0.41x"},
    },
    "verdict": "Pass",
    "checks": [
        {
            "name": "accuracy-maxRegression",
            "verdict": "Pass",
            "observed": "-0.22 points",
            "bound": "maxRegression 2%",
            "message": "accuracy 97.62% → 97.4% (-0.22 points)",
        }
    ],
    "baseline": {"uri": "pvc://models/out/artifacts/b", "digest": DIGEST, "sizeBytes": 1_000_000, "requires": []},
    "artifact": {"uri": "pvc://models/out/artifacts/c", "digest": DIGEST, "sizeBytes": 46_000, "requires": ["Vnni"]},
    "report": {"uri": "pvc://models/out/reports/r.json", "digest": DIGEST},
    "revision": 2,
}
RELEASE_STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "currentRevision": 2,
    "currentDigest": DIGEST,
    "lastGoodRevision": 1,
    "latestRevision": 3,
    "rollbacks": 0,
    "rejected": [
        {"digest": DIGEST, "revision": 3, "reason": "GateFailed", "message": "accuracy fell", "time": TIME},
    ],
    "conditions": [_condition("Ready", "True", "Serving", "serves revision 2")],
}
REVISION_STATUS: dict[str, Any] = {"conditions": [_condition("Good", "True", "GatePassed", "every check passed")]}
