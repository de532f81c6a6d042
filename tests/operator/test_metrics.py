"""The metrics, and the page that explains them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prometheus_client import generate_latest

from plimsoll_operator.cluster.resources import COMPRESSION_JOBS, MODEL_RELEASES, MODEL_REVISIONS
from plimsoll_operator.metrics import Metrics
from plimsoll_operator.mirror import Mirror

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "metrics.md"


def put(mirror: Mirror, resource: Any, name: str, version: int = 1, **more: Any) -> None:
    metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}
    mirror.put(resource, {"kind": resource.kind, "metadata": metadata, **more})


def filled() -> Mirror:
    mirror = Mirror()
    put(mirror, COMPRESSION_JOBS, "a", spec={}, status={"phase": "Succeeded"})
    put(mirror, COMPRESSION_JOBS, "b", spec={})
    put(mirror, MODEL_RELEASES, "r", spec={}, status={"currentRevision": 1, "rollbacks": 2, "rejected": [{}]})
    put(mirror, MODEL_REVISIONS, "r-1", spec={"release": "r", "revision": 1})
    for number in (2, 3):
        figures = {"baseline": "0.98", "candidate": "0.97", "change": "-1.00pp"}
        summary = {"accuracy": figures, "size": figures, "latencyP50": figures}
        put(mirror, MODEL_REVISIONS, f"r-{number}", spec={"release": "r", "revision": number, "summary": summary})
    return mirror


def scraped(mirror: Mirror) -> str:
    return generate_latest(Metrics(mirror).registry).decode()


def test_what_objects_say_is_told_at_every_scrape() -> None:
    text = scraped(filled())
    assert 'plimsoll_jobs{namespace="ns",phase="Succeeded"} 1.0' in text
    assert 'plimsoll_jobs{namespace="ns",phase="Pending"} 1.0' in text
    assert 'plimsoll_release_revision{namespace="ns",release="r"} 1.0' in text
    assert 'plimsoll_rollbacks_total{namespace="ns",release="r"} 2.0' in text
    labels = 'metric="accuracy",model="candidate",namespace="ns",release="r",revision="3"'
    assert f"plimsoll_model_quality{{{labels}}} 0.97" in text
    assert 'revision="2"' not in text


def test_series_go_with_their_object() -> None:
    mirror = filled()
    mirror.remove(MODEL_RELEASES, "ns", "r", "r")
    assert 'release="r"' not in scraped(mirror)


def test_every_metric_is_explained_and_nothing_else() -> None:
    metrics = Metrics(filled())
    told = {family.name + ("_total" if family.type == "counter" else "") for family in metrics.registry.collect()}
    explained = set(re.findall(r"^\| `(plimsoll_\w+)`", PAGE.read_text(), re.MULTILINE))
    assert explained == told


def test_the_labels_that_are_explained_are_the_labels() -> None:
    rows = dict(re.findall(r"^\| `(plimsoll_\w+)` \|([\w, ]*)\|", PAGE.read_text(), re.MULTILINE))
    metrics = Metrics(filled())
    metrics.stage_seconds.labels("compress").observe(1)
    metrics.verdicts.labels("CompressionJob", "Pass").inc()
    metrics.reconcile_seconds.labels("CompressionJob").observe(1)
    metrics.reconcile_errors.labels("CompressionJob").inc()
    for family in metrics.registry.collect():
        labels = {name for sample in family.samples for name in sample.labels if name != "le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        assert labels == {label for label in rows[name].replace(" ", "").split(",") if label}, name
