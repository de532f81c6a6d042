"""The operator's metrics. What objects say is read from the mirror when scraped: it outlives a restart and goes with
the object; what happens is counted as it happens."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from plimsoll_api.summary import QUALITY_METRICS
from plimsoll_operator.cluster.resources import COMPRESSION_JOBS, MODEL_RELEASES, MODEL_REVISIONS, Json
from plimsoll_operator.mirror import Mirror

_STAGE_BUCKETS = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600)
_RECONCILE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_MODELS = ("baseline", "candidate")


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self, mirror: Mirror) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(ObjectCollector(mirror))
        self.stage_seconds = Histogram(
            "plimsoll_stage_duration_seconds",
            "How long a stage's batch Job ran.",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self.verdicts = Counter(
            "plimsoll_verdicts", "Verdicts that were given.", ["kind", "verdict"], registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "plimsoll_reconcile_duration_seconds",
            "How long it took to observe, decide and perform once.",
            ["kind"],
            buckets=_RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.reconcile_errors = Counter(
            "plimsoll_reconcile_errors",
            "Reconciliations that failed and are tried again.",
            ["kind"],
            registry=self.registry,
        )
        self.queue_depth = Gauge("plimsoll_queue_depth", "Objects that wait to be reconciled.", registry=self.registry)
        self.leader = Gauge(
            "plimsoll_leader", "1 while this operator holds the Lease and works, else 0.", registry=self.registry
        )


class ObjectCollector(Collector):
    """Reads what the objects say at every scrape."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield the metrics of jobs, releases and models."""
        jobs = GaugeMetricFamily("plimsoll_jobs", "CompressionJobs by phase.", labels=["namespace", "phase"])
        phases = Tally(
            (obj["metadata"]["namespace"], (obj.get("status") or {}).get("phase") or "Pending")
            for obj in self._mirror.all(COMPRESSION_JOBS)
        )
        for labels, count in sorted(phases.items()):
            jobs.add_metric(labels, count)
        yield jobs
        yield from self._releases()

    def _releases(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        home = ["namespace", "release"]
        pointer = GaugeMetricFamily("plimsoll_release_revision", "The revision that serves.", labels=home)
        rollbacks = CounterMetricFamily(
            "plimsoll_rollbacks", "Times that the pointer went back by itself.", labels=home
        )
        rejected = GaugeMetricFamily("plimsoll_release_rejected", "Artifacts that may not serve again.", labels=home)
        quality = GaugeMetricFamily(
            "plimsoll_model_quality",
            "The metrics of quality of the task, of the newest measured revisions.",
            labels=[*home, "revision", "model", "metric"],
        )
        size = GaugeMetricFamily("plimsoll_model_size_bytes", "Bytes on disk.", labels=[*home, "revision", "model"])
        latency = GaugeMetricFamily(
            "plimsoll_model_latency_seconds",
            "Latency at the first batch size.",
            labels=[*home, "revision", "model", "quantile"],
        )
        measured = _measured_revisions(self._mirror)
        for release in self._mirror.all(MODEL_RELEASES):
            labels = [release["metadata"]["namespace"], release["metadata"]["name"]]
            status = release.get("status") or {}
            current = status.get("currentRevision")
            pointer.add_metric(labels, current or 0)
            rollbacks.add_metric(labels, status.get("rollbacks") or 0)
            rejected.add_metric(labels, len(status.get("rejected") or []))
            for number, summary in _shown(measured.get((labels[0], labels[1]), {}), current):
                for model in _MODELS:
                    where = [*labels, str(number), model]
                    for metric in QUALITY_METRICS:
                        _add(quality, [*where, metric], summary, metric, model)
                    _add(size, where, summary, "size", model)
                    _add(latency, [*where, "0.5"], summary, "latencyP50", model)
                    _add(latency, [*where, "0.95"], summary, "latencyP95", model)
        yield from (pointer, rollbacks, rejected, quality, size, latency)


def _measured_revisions(mirror: Mirror) -> dict[tuple[str, str], dict[int, Json]]:
    found: dict[tuple[str, str], dict[int, Json]] = {}
    for revision in mirror.all(MODEL_REVISIONS):
        spec = revision["spec"]
        if spec.get("summary"):
            home = (revision["metadata"]["namespace"], spec["release"])
            found.setdefault(home, {})[spec["revision"]] = spec["summary"]
    return found


def _shown(summaries: dict[int, Json], current: int | None) -> list[tuple[int, Json]]:
    """Return the figures of the newest measured revision and of the one that serves: two series a release at most."""
    shown = {number for number in (max(summaries, default=None), current) if number in summaries}
    return [(number, summaries[number]) for number in sorted(number for number in shown if number is not None)]


def _add(family: GaugeMetricFamily, labels: list[str], summary: dict[str, Any], metric: str, model: str) -> None:
    figures = summary.get(metric)
    if not figures:
        return
    try:
        family.add_metric(labels, float(figures[model]))
    except (KeyError, ValueError):
        return
