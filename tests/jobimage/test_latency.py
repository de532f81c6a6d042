"""Times are measured interleaved, and the interval of a ratio is honest. The clock is ours: nothing here is timed."""

from collections.abc import Callable

import numpy as np
import pytest

from plimsoll_api.report import RatioInterval
from plimsoll_api.spec import Metric
from plimsoll_job.evaluate import latency
from plimsoll_job.evaluate.latency import latency_figures, ratio_intervals, slower_notes
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


def test_figures_are_percentiles_of_all_runs() -> None:
    figures = latency_figures(np.arange(1, 101).reshape(10, 10) / 1000, batch_size=4)
    assert figures.p50_seconds == pytest.approx(0.050)
    assert figures.p95_seconds == pytest.approx(0.095)
    assert figures.p99_seconds == pytest.approx(0.099)
    assert figures.throughput_per_second == pytest.approx(4 * 100 / 5.05)
    assert figures.runs == 100


def simulated(seed: int, slowdown: float) -> Times:
    """Runs with jitter, rare long pauses, and a machine whose mood changes from round to round."""
    chance = np.random.default_rng(seed)
    mood = chance.gamma(40, 1 / 40, size=(40, 1))

    def runs() -> np.ndarray:
        jitter = 1 + 0.05 * chance.exponential(size=(40, 20)) + 0.5 * (chance.random((40, 20)) < 0.02)
        return np.asarray(0.001 * mood * jitter)

    return Times(runs(), slowdown * runs())


def of(metric: Metric, intervals: list[RatioInterval]) -> RatioInterval:
    return next(interval for interval in intervals if interval.metric is metric)


def test_a_model_against_itself_is_found_equal() -> None:
    found = [of(Metric.LATENCY_P50, ratio_intervals(simulated(seed, 1.0), 1, seed)) for seed in range(40)]
    assert sum(one.low <= 1 <= one.high for one in found) >= 36
    assert all(0.97 < one.ratio < 1.03 for one in found)


def test_a_slowdown_of_a_tenth_is_noticed() -> None:
    found = [of(Metric.LATENCY_P50, ratio_intervals(simulated(seed, 1.1), 1, seed)) for seed in range(20)]
    assert all(one.low > 1.05 for one in found)


def test_every_timed_metric_has_an_interval_around_its_ratio() -> None:
    intervals = ratio_intervals(simulated(0, 0.5), 32, seed=0)
    assert [interval.metric for interval in intervals] == [
        Metric.LATENCY_P50, Metric.LATENCY_P95, Metric.LATENCY_P99, Metric.THROUGHPUT,
    ]  # fmt: skip
    for interval in intervals:
        assert interval.low <= interval.ratio <= interval.high
        assert (interval.batch_size, interval.rounds) == (32, 40)
    assert of(Metric.THROUGHPUT, intervals).ratio == pytest.approx(2, rel=0.05)


def test_resampling_is_the_same_as_sorting_each_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    times = simulated(3, 1.2)
    chance = np.random.default_rng(9)
    drawn = chance.multinomial(40, np.full(40, 1 / 40), size=1_000)
    pooled = [(np.repeat(times.candidate, row, axis=0), np.repeat(times.baseline, row, axis=0)) for row in drawn]
    ratios = [
        np.percentile(candidate, 95, method="inverted_cdf") / np.percentile(baseline, 95, method="inverted_cdf")
        for candidate, baseline in pooled
    ]
    monkeypatch.setattr(latency, "MAX_CELLS", 300 * times.baseline.size)  # the last part is a short one
    interval = of(Metric.LATENCY_P95, ratio_intervals(times, 1, seed=9))
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])))


def test_one_seed_gives_one_interval() -> None:
    assert ratio_intervals(simulated(0, 1.0), 1, 5) == ratio_intervals(simulated(0, 1.0), 1, 5)


def test_a_candidate_that_is_slower_for_certain_is_told() -> None:
    def interval(metric: Metric, batch_size: int, low: float, high: float) -> RatioInterval:
        return RatioInterval(metric=metric, batch_size=batch_size, ratio=(low + high) / 2, low=low, high=high, rounds=8)

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
