"""Whether the intervals of latency hold what they say: `make bench-latency`, or `python -m bench.latency [--runs N]`.

One artifact is timed beside itself, as an evaluation times two; a 95% interval of the ratio must contain 1 in at least
95% of the runs. Beside it stands the interval that the rounds of one process alone would give, as a bootstrap.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

import numpy as np

from plimsoll_api.gates import LatencyMeasurement, Metric
from plimsoll_job.evaluate.latency import ratio_intervals
from plimsoll_job.evaluate.processes import Timed, time_in_processes
from plimsoll_job.evaluate.timed import Graph
from plimsoll_job.evaluate.timing import Times

BATCH_SIZE = 1
RESAMPLES = 1_000


def make(directory: Path) -> tuple[Graph, dict[str, np.ndarray]]:
    """Export the digits CNN, untrained, and return it with one image."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # torch takes seconds, and --help should not.
    from plimsoll_job.export.onnx_export import export_onnx  # noqa: PLC0415
    from plimsoll_job.load.inputs import single  # noqa: PLC0415
    from plimsoll_job.zoo import digits_cnn  # noqa: PLC0415

    file = directory / "model.onnx"
    export_onnx(digits_cnn().eval(), single((1, 8, 8)), file)
    return Graph(path=str(file)), {"inputs": np.zeros((BATCH_SIZE, 1, 8, 8), dtype=np.float32)}


def of_one_process(times: Times, seed: int) -> bool:
    """Tell whether a bootstrap over the rounds of one process has 1 in its 95% interval of the medians' ratio."""
    chance, rounds = np.random.default_rng(seed), len(times.baseline)
    ratios = []
    for _ in range(RESAMPLES):
        drawn = chance.integers(0, rounds, rounds)
        ratios.append(np.median(times.candidate[drawn]) / np.median(times.baseline[drawn]))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return bool(low <= 1 <= high)


def main() -> None:
    """Measure, and print how many intervals contain 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40, help="how often the artifact is timed beside itself")
    runs = parser.parse_args().runs
    settings = LatencyMeasurement(batch_sizes=[BATCH_SIZE])
    held: dict[str, int] = {}
    widths: list[float] = []
    with tempfile.TemporaryDirectory(prefix="plimsoll-bench-") as directory:
        graph, batch = make(Path(directory))
        for run in range(runs):
            [found] = time_in_processes(graph, [Timed(graph, {BATCH_SIZE: (batch, batch)})], settings)
            times = found[BATCH_SIZE]
            for one in ratio_intervals(times, BATCH_SIZE):
                held[one.metric] = held.get(one.metric, 0) + (one.low <= 1 <= one.high)
                if one.metric is Metric.LATENCY_P50:
                    widths.append(one.high / one.low - 1)
            held["one process"] = held.get("one process", 0) + of_one_process(times[0], run)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {settings.processes} processes, {settings.rounds} rounds")
    for name, count in held.items():
        print(f"{name}: 1 is in {count} of {runs} 95% intervals ({count / runs:.1%})")
    print(f"{Metric.LATENCY_P50}: an interval is {np.median(widths):.1%} wide (median)")


if __name__ == "__main__":
    main()
