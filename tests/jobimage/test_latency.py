"""Times are measured interleaved, and the interval of a ratio is honest. The clock is ours: nothing here is timed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import t

from plimsoll_api.gates import LatencyMeasurement
from plimsoll_api.model import digest_of
from plimsoll_api.report import RatioInterval
from plimsoll_api.spec import Metric
from plimsoll_job import child
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.latency import latency_figures, ratio_intervals, slower_notes
from plimsoll_job.evaluate.processes import Timed, time_in_processes
from plimsoll_job.evaluate.timed import Graph
from plimsoll_job.evaluate.timing import Times, measure_times, runs_per_block, warm_up


class FakeClock:
    """Time that passes only while a model runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def model(self, name: str, seconds: Callable[[int], float]) -> Callable[[], None]:
        runs = iter(range(10**9))

        def call() -> None:
            self.calls.append(name)
            self.now += seconds(next(runs))

        return call


def test_rounds_go_baseline_candidate_candidate_baseline() -> None:
    clock = FakeClock()
    times = measure_times(clock.model("A", lambda _: 0.004), clock.model("B", lambda _: 0.002), rounds=8, clock=clock)
    runs = times.baseline.shape[1] // 2
    assert times.baseline.shape == times.candidate.shape == (8, 2 * runs)
    measured = "".join(clock.calls[-8 * 4 * runs :])
    assert measured == ("A" * runs + "B" * 2 * runs + "A" * runs) * 8
    assert np.allclose(times.baseline, 0.004)
    assert np.allclose(times.candidate, 0.002)


def test_warm_up_ends_when_the_times_are_stable() -> None:
    clock = FakeClock()
    settled = warm_up(clock.model("A", lambda run: 0.001 * (1 + 10 * 0.9**run)), clock)
    assert settled == pytest.approx(0.001, rel=0.1)
    assert len(clock.calls) < 120


def test_warm_up_ends_when_the_times_never_settle() -> None:
    clock = FakeClock()
    warm_up(clock.model("A", lambda run: 0.01 * 1.01**run), clock)
    assert clock.now < 10


def test_a_slow_model_is_warm_after_a_few_runs() -> None:
    clock = FakeClock()
    assert warm_up(clock.model("A", lambda run: 5.0), clock) == 5
    assert len(clock.calls) == 3


def test_blocks_are_short_and_never_empty() -> None:
    assert runs_per_block(20e-6) == 60
    assert runs_per_block(0.001) == 4
    assert runs_per_block(5.0) == 3


def test_figures_are_percentiles_of_all_runs_in_all_processes() -> None:
    runs = np.arange(1, 601).reshape(6, 10, 10) / 1000
    figures = latency_figures(list(runs), batch_size=4)
    assert figures.p50_seconds == pytest.approx(0.300)
    assert figures.p95_seconds == pytest.approx(0.570)
    assert figures.p99_seconds == pytest.approx(0.594)
    assert figures.throughput_per_second == pytest.approx(4 * 600 / runs.sum())
    assert (figures.runs, figures.processes) == (600, 6)


@pytest.mark.parametrize(
    ("runs", "metrics"),
    [
        (19, {Metric.LATENCY_P50, Metric.THROUGHPUT}),
        (20, {Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.THROUGHPUT}),
        (99, {Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.THROUGHPUT}),
        (100, {Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.LATENCY_P99, Metric.THROUGHPUT}),
    ],
)
def test_a_percentile_that_has_too_few_runs_is_not_told(runs: int, metrics: set[Metric]) -> None:
    """The slowest of fifty runs is no p99."""
    seconds = [np.linspace(1, 2, number)[None] for number in (500, runs, 500)]
    figures = latency_figures(seconds, 1)
    assert (figures.p95_seconds is None) == (Metric.LATENCY_P95 not in metrics)
    assert (figures.p99_seconds is None) == (Metric.LATENCY_P99 not in metrics)
    assert {one.metric for one in ratio_intervals([Times(one, one) for one in seconds], 1)} == metrics


def simulated(seed: int, slowdown: float, processes: int = 6, places: float = 0.02) -> list[Times]:
    """Runs with jitter, rare long pauses, the machine's moods, and processes whose memory makes a model faster."""
    chance = np.random.default_rng(seed)

    def process() -> Times:
        mood = chance.gamma(40, 1 / 40, size=(7, 1))

        def runs() -> np.ndarray:
            jitter = 1 + 0.05 * chance.exponential(size=(7, 20)) + 0.5 * (chance.random((7, 20)) < 0.02)
            return np.asarray(0.001 * mood * jitter * np.exp(places * chance.standard_normal()))

        return Times(runs(), slowdown * runs())

    return [process() for _ in range(processes)]


def of(metric: Metric, intervals: list[RatioInterval]) -> RatioInterval:
    return next(interval for interval in intervals if interval.metric is metric)


@pytest.mark.parametrize("metric", [Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.THROUGHPUT])
def test_a_model_against_itself_is_found_equal(metric: Metric) -> None:
    """Over processes; the runs of one would be sure of whatever its memory makes of the two."""
    found = [of(metric, ratio_intervals(simulated(seed, 1.0), 1)) for seed in range(400)]
    assert 0.93 < np.mean([one.low <= 1 <= one.high for one in found]) < 0.98
    assert all(0.9 < one.ratio < 1.1 for one in found)


def test_a_slowdown_of_a_tenth_is_noticed() -> None:
    found = [of(Metric.LATENCY_P50, ratio_intervals(simulated(seed, 1.1), 1)) for seed in range(40)]
    assert np.mean([one.low > 1 for one in found]) >= 0.9


def test_every_timed_metric_has_an_interval_around_its_ratio() -> None:
    intervals = ratio_intervals(simulated(0, 0.5), 32)
    assert [interval.metric for interval in intervals] == [
        Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.LATENCY_P99, Metric.THROUGHPUT,
    ]  # fmt: skip
    for interval in intervals:
        assert interval.low <= interval.ratio <= interval.high
        assert (interval.batch_size, interval.rounds, interval.processes) == (32, 42, 6)
    assert of(Metric.THROUGHPUT, intervals).ratio == pytest.approx(2, rel=0.05)


def test_the_interval_is_students_over_the_processes() -> None:
    times = simulated(3, 1.2)
    logs = [np.log(np.median(one.candidate) / np.median(one.baseline)) for one in times]
    low, high = t.interval(0.95, 5, np.mean(logs), np.std(logs, ddof=1) / 6**0.5)
    found = of(Metric.LATENCY_P50, ratio_intervals(times, 1))
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)), rel=0.02)


def test_more_processes_make_it_narrower() -> None:
    few, many = (of(Metric.LATENCY_P50, ratio_intervals(simulated(1, 1, count), 1)) for count in (3, 40))
    assert many.high - many.low < (few.high - few.low) / 2


def test_each_process_loads_the_models_anew(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_product(tmp_path / f"{name}.onnx")
    digest = digest_of((tmp_path / "b.onnx").read_bytes())
    batch = {"x": np.ones((2, 3), np.float32)}
    settings = LatencyMeasurement(batch_sizes=[2], rounds=8, processes=3)
    first, other = Graph(path=str(tmp_path / "a.onnx")), Graph(path=str(tmp_path / "b.onnx"), digest=digest)
    [found] = time_in_processes(first, [Timed(other, {2: (batch, batch)})], settings)
    assert [one.baseline.shape[0] for one in found[2]] == [3, 3, 3]
    assert all((one.candidate > 0).all() and one.candidate.shape == one.baseline.shape for one in found[2])
    changed = Graph(path=str(tmp_path / "a.onnx"), digest="sha256:" + "0" * 64)
    with pytest.raises(UserError, match=r"spec.evaluation.latency: the models cannot be timed: .* has changed while"):
        time_in_processes(changed, [Timed(other, {2: (batch, batch)})], settings)


def test_a_slow_model_is_timed_however_long_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an hour was all that a process had; a large model at batch 32 was tried again, and again."""
    monkeypatch.setattr(child, "TIMEOUT_SECONDS", 0.01, raising=False)
    write_product(tmp_path / "a.onnx")
    batch, graph = {"x": np.ones((2, 3), np.float32)}, Graph(path=str(tmp_path / "a.onnx"))
    settings = LatencyMeasurement(batch_sizes=[2], rounds=8, processes=2)

    [found] = time_in_processes(graph, [Timed(graph, {2: (batch, batch)})], settings)

    assert len(found[2]) == 2


def write_product(file: Path) -> None:
    """Write a graph that multiplies [batch, 3] by a matrix."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), file)


def test_a_candidate_that_is_slower_for_certain_is_told() -> None:
    def interval(metric: Metric, batch_size: int, low: float, high: float) -> RatioInterval:
        return RatioInterval(
            metric=metric, batch_size=batch_size, ratio=(low + high) / 2, low=low, high=high, rounds=8, processes=6
        )

    notes = slower_notes(
        [
            interval(Metric.LATENCY_P50, 1, 2.1, 2.3),
            interval(Metric.LATENCY_P95, 1, 2.1, 2.3),
            interval(Metric.LATENCY_P50, 32, 0.9, 1.2),
        ]
    )
    assert notes == [
        "The candidate is slower than the baseline at batch size 1: its median latency is 2.20 times that of the "
        "baseline, 2.10 to 2.30 with 95% confidence."
    ]
