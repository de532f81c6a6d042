"""python -m bench.breadth.speed TECHNIQUE FOLDER: how long an artifact takes for one sample, over the baseline."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from plimsoll_api.artifact import MODEL_FILE, ArtifactRef
from plimsoll_api.gates import LatencyMeasurement, Metric
from plimsoll_job.evaluate.latency import ratio_intervals
from plimsoll_job.evaluate.processes import Timed, time_in_processes
from plimsoll_job.evaluate.timed import Graph
from plimsoll_job.load.store import Store

#: Short, for many models: enough to tell slower from faster where it is not close.
SETTINGS = LatencyMeasurement(batch_sizes=[1], rounds=24, processes=4)


def main() -> None:
    """Print the ratio of the median latencies, and its interval over processes."""
    technique, folder = sys.argv[1], Path(sys.argv[2])
    store = Store(claims=folder.parent)
    candidate, baseline = (
        Graph(path=str(store.locate(f"{ref.uri}/{MODEL_FILE}", "artifact")))
        for ref in (
            ArtifactRef.model_validate_json((folder / technique / file).read_bytes())
            for file in ("artifact.json", "baseline.json")
        )
    )
    with np.load(folder / technique / "expected.npz", allow_pickle=False) as kept:
        sample = {name: kept[name][:1] for name in kept.files if name != "answers"}
    [found] = time_in_processes(baseline, [Timed(candidate, {1: (sample, sample)})], SETTINGS)
    [ratio] = [one for one in ratio_intervals(found[1], 1) if one.metric is Metric.LATENCY_P50]
    print(json.dumps({"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high}))


if __name__ == "__main__":
    main()
