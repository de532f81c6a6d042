"""python -m bench.engine.measure PEER CASE FOLDER: what a contender made beside the baseline, as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from bench.engine.case import Answer, Arrays, Case
from bench.engine.contenders import peer_named
from numpy.typing import NDArray

from plimsoll_job.evaluate.timing import measure_times
from plimsoll_job.sessions import open_session

BATCH_SIZES = (1, 32)
#: A round is at least six runs of each model; slow ones get fewer rounds.
MOST_ROUNDS, LEAST_ROUNDS, RUNS_A_ROUND = 40, 6, 6
LATENCY_SECONDS = 30
ASKED_AT_ONCE = 256


def main() -> None:
    """Print bytes, parameters, quality and latencies of the contender, and the baseline's."""
    peer, case, folder = peer_named(sys.argv[1]), Case.read(Path(sys.argv[2])), Path(sys.argv[3])
    baseline = served(case.baseline, case.threads)
    candidate = peer.load(case, folder) if peer.load else served(folder / "model.onnx", case.threads)
    found: dict[str, object] = {
        "bytes": sum(file.stat().st_size for file in folder.glob("model*")),
        "baseline_bytes": case.baseline.stat().st_size,
        "quality": quality(case, candidate, baseline),
        "baseline_quality": quality(case, baseline, baseline),
    }
    if not peer.load:
        found |= {"parameters": parameters(folder / "model.onnx"), "baseline_parameters": parameters(case.baseline)}
    for batch_size in BATCH_SIZES:
        batch = {name: array[:batch_size] for name, array in case.arrays("test")[0].items()}
        seconds = _seconds(baseline, batch) + _seconds(candidate, batch)
        rounds = int(np.clip(LATENCY_SECONDS / (RUNS_A_ROUND * seconds), LEAST_ROUNDS, MOST_ROUNDS))
        times = measure_times(lambda one=batch: baseline(one), lambda one=batch: candidate(one), rounds=rounds)  # type: ignore[misc]
        found[f"p50_{batch_size}"] = float(np.median(times.candidate))
        found[f"baseline_p50_{batch_size}"] = float(np.median(times.baseline))
    print(json.dumps(found))


def _seconds(model: Answer, batch: Arrays) -> float:
    model(batch)
    began = time.perf_counter()
    model(batch)
    return time.perf_counter() - began


def served(file: Path, threads: int) -> Answer:
    """Return the ONNX model as ONNX Runtime answers it."""
    session = open_session(file.read_bytes(), threads)
    return lambda arrays: np.asarray(session.run(None, arrays)[0])


def quality(case: Case, model: Answer, baseline: Answer) -> float:
    """Return the share of right answers, or for embeddings their mean cosine with the baseline's."""
    inputs, labels = case.arrays("test")
    answers = _answers(model, inputs)
    if labels is not None:
        return float((answers.argmax(axis=1) == labels).mean())
    wanted = _answers(baseline, inputs)
    return float((_unit(answers) * _unit(wanted)).sum(axis=1).mean())


def parameters(file: Path) -> int:
    """Return how many numbers the ONNX model holds that are more than one number together."""
    return sum(int(np.prod(one.dims)) for one in onnx.load(str(file)).graph.initializer if one.dims)


def _answers(model: Answer, inputs: Arrays) -> NDArray[np.float32]:
    count = len(next(iter(inputs.values())))
    batches = [
        {name: array[at : at + ASKED_AT_ONCE] for name, array in inputs.items()}
        for at in range(0, count, ASKED_AT_ONCE)
    ]
    return np.concatenate([model(batch) for batch in batches])


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


if __name__ == "__main__":
    main()
