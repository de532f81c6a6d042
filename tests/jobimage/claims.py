"""Claims on disk, plans over them, and runs of the job image in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_wine
from torch import nn

from plimsoll_api.artifact import ArtifactRef
from plimsoll_api.plan import EvaluationRequest, Plan
from plimsoll_api.report import Report, Summary
from plimsoll_job.compress import compress
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.zoo import wine_mlp

COLUMNS = [f"c{number}" for number in range(13)]
PRUNE: dict[str, Any] = {"prune": {"criterion": "Activation", "amount": "50%"}}
DISTILL: dict[str, Any] = {"distill": {"epochs": 30, "batchSize": 16, "learningRate": "0.01"}}
INT8: dict[str, Any] = {"quantize": {"scheme": "Int8Static"}}
STEPS = [PRUNE, DISTILL, INT8]
UNSTRUCTURED: dict[str, Any] = {"prune": {"criterion": "Magnitude", "granularity": "Unstructured", "amount": "50%"}}


@dataclass(frozen=True)
class Claims:
    """A directory that holds the claims `models`, `data` and `out`."""

    directory: Path

    @classmethod
    def copy_of(cls, source: Path, target: Path) -> Claims:
        shutil.copytree(source, target)
        (target / "out").mkdir()
        return cls(target)

    @property
    def weights(self) -> Path:
        return self.directory / "models" / "wine" / "model.safetensors"

    def plan(self, steps: list[dict[str, Any]] | None = None, **changes: Any) -> Plan:
        value: dict[str, Any] = {
            "image": "",
            "model": {"uri": "pvc://models/wine", "architecture": {"factory": "plimsoll_job.zoo:wine_mlp"}},
            "task": "TabularClassification",
            "train": {"uri": "pvc://data/train.parquet", "inputs": COLUMNS},
            "calibration": {"uri": "pvc://data/train.parquet", "inputs": COLUMNS, "samples": 64},
            "steps": STEPS if steps is None else steps,
            "seed": 0,
            "output": {"uri": "pvc://out/wine"},
        }
        return Plan.model_validate(value | changes)

    def request(self, baseline: ArtifactRef, candidate: ArtifactRef, **changes: Any) -> EvaluationRequest:
        value: dict[str, Any] = {
            "task": "TabularClassification",
            "data": {"uri": "pvc://data/test.parquet", "inputs": COLUMNS, "slices": [{"column": "strength"}]},
            "settings": {"latency": {"batchSizes": [1, 8], "rounds": 8, "processes": 2}},
            "seed": 0,
            "baseline": baseline,
            "candidate": candidate,
            "output": {"uri": "pvc://out/wine"},
        }
        return EvaluationRequest.model_validate(value | changes)


@dataclass(frozen=True)
class Ended:
    """How a process of the job image ended."""

    code: int
    log: str
    summary: Summary


def start(claims: Claims, verb: str, document: Plan | EvaluationRequest, name: str = "run") -> subprocess.Popen[str]:
    """Start one verb in a process of its own."""
    file = claims.directory.parent / f"{name}-{verb}.json"
    file.write_bytes(document.canonical_json())
    flag = "--plan" if isinstance(document, Plan) else "--request"
    return subprocess.Popen(
        [sys.executable, "-m", "plimsoll_job", verb, flag, str(file), "--claims", str(claims.directory),
         "--termination-file", str(_ending(claims, name, verb))],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def end(claims: Claims, process: subprocess.Popen[str], verb: str, name: str = "run") -> Ended:
    """Wait for the process and read how it ended."""
    log, _ = process.communicate(timeout=300)
    ending = _ending(claims, name, verb)
    assert ending.exists(), log
    return Ended(process.returncode, log, Summary.model_validate_json(ending.read_bytes()))


def run(claims: Claims, verb: str, document: Plan | EvaluationRequest, name: str = "run") -> Ended:
    """Run one verb to its end."""
    return end(claims, start(claims, verb, document, name), verb, name)


def compressed(claims: Claims, *arguments: Any, **changes: Any) -> Summary:
    """Compress in this process, silently."""
    plan = claims.plan(*arguments, **changes)
    summary = compress(plan, Store(claims=claims.directory), Reporter(emit=lambda _: None))
    torch.set_num_threads(1)
    return summary


def published(claims: Claims, ref: ArtifactRef | None) -> dict[str, Any]:
    """Return the manifest of a published artifact."""
    assert ref is not None
    path = claims.directory / ref.uri.removeprefix("pvc://") / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


def accuracies(report: Report) -> tuple[float, float]:
    """Return the accuracy of the baseline and of the candidate."""
    assert report.baseline is not None
    assert report.candidate is not None
    assert report.baseline.accuracy is not None
    assert report.candidate.accuracy is not None
    return report.baseline.accuracy, report.candidate.accuracy


def prepare_wine(directory: Path) -> None:
    """Train the perceptron on half of the wines and write model and data as two claims."""
    data = load_wine()
    order = np.random.default_rng(0).permutation(len(data.target))
    inputs = ((data.data - data.data.mean(axis=0)) / data.data.std(axis=0))[order].astype(np.float32)
    labels = data.target[order].astype(np.int64)
    strength = np.where(inputs[:, 0] > 0, "strong", "light")
    torch.manual_seed(0)
    module = wine_mlp().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(module(torch.from_numpy(inputs[:90])), torch.from_numpy(labels[:90]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    (directory / "models" / "wine").mkdir(parents=True)
    (directory / "data").mkdir()
    save_file(module.state_dict(), directory / "models" / "wine" / "model.safetensors")
    for name, part in (("train", slice(0, 90)), ("test", slice(90, None))):
        columns = {column: inputs[part, index] for index, column in enumerate(COLUMNS)}
        table = pa.table(columns | {"labels": labels[part], "strength": strength[part]})
        pq.write_table(table, directory / "data" / f"{name}.parquet")


def _ending(claims: Claims, name: str, verb: str) -> Path:
    return claims.directory.parent / f"{name}-{verb}-ending.json"
