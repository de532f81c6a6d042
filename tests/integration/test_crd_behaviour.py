"""What the CRDs do on a real API server besides validation: immutability, status, columns, names."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from kubernetes import client
from tests.api.manifest_cases import assign, base
from tests.api.statuses import JOB_STATUS, RELEASE_STATUS, REVISION_STATUS
from tests.cluster import Cluster
from tests.integration.custom_objects import RefusedError, apply

from plimsoll_api.manifest import parse
from plimsoll_api.resources import KINDS, MUTABLE_AFTER_START, CompressionJob
from plimsoll_api.rules import to_camel
from plimsoll_api.spec import CompressionJobSpec

pytestmark = pytest.mark.apiserver

#: Another value for each field of a job's spec.
CHANGES: dict[str, Any] = {
    "model": {"uri": "pvc://other/model", "architecture": {"factory": "zoo:other"}},
    "task": "TabularClassification",
    "data": {
        "train": {"uri": "pvc://data/other.npz"},
        "calibration": {"uri": "pvc://data/other.npz"},
        "evaluation": {"uri": "pvc://data/more.npz"},
    },
    "steps": [{"prune": {"criterion": "Magnitude", "amount": "10%"}}],
    "seed": 7,
    "evaluation": {"latency": {"batchSizes": [1, 8]}},
    "gates": [{"metric": "accuracy", "maxRegression": "50%"}],
    "output": {"uri": "pvc://elsewhere"},
    "releaseRef": {"name": "other"},
    "runtime": {"image": "other"},
    "evaluationRuntime": {"image": "other"},
    "suspend": True,
    "allowCodeExecution": True,
    "backoffLimit": 9,
    "activeDeadlineSeconds": 9,
    "ttlSecondsAfterFinished": 9,
}

#: What another value of a field takes besides.
TOGETHER = {"allowCodeExecution": {"model": {"uri": "pvc://other/model", "architecture": {"huggingface": {}}}}}

STATUSES = {"job": JOB_STATUS, "release": RELEASE_STATUS, "revision": REVISION_STATUS}


def job_with(**changes: Any) -> dict[str, Any]:
    job = base("job")
    for field, value in changes.items():
        assign(job, f"spec.{field}", value)
    return job


def with_status(manifest: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    return {key: manifest[key] for key in ("apiVersion", "kind", "metadata")} | {"status": status}


def test_every_field_of_the_spec_has_a_change_to_try() -> None:
    assert set(CHANGES) == {to_camel(name) for name in CompressionJobSpec.model_fields}


@pytest.mark.parametrize("field", CHANGES)
def test_a_started_job_keeps_its_spec_but_for_suspend_and_ttl(
    api_client: client.ApiClient, namespace: str, field: str
) -> None:
    apply(api_client, namespace, job_with())
    changed = job_with(**{field: CHANGES[field]}, **TOGETHER.get(field, {}))
    apply(api_client, namespace, changed)
    apply(api_client, namespace, job_with())
    apply(api_client, namespace, with_status(base("job"), {"startTime": "2026-11-22T07:00:00Z"}), status=True)
    if field in map(to_camel, MUTABLE_AFTER_START):
        stored = apply(api_client, namespace, changed)
        assert stored["metadata"]["generation"] == 4
    else:
        with pytest.raises(RefusedError, match=rf"spec\.{field}: Forbidden: is immutable once the job has started"):
            apply(api_client, namespace, changed)


def test_a_field_cannot_be_taken_away_from_a_started_job(api_client: client.ApiClient, namespace: str) -> None:
    apply(api_client, namespace, job_with())
    apply(api_client, namespace, with_status(base("job"), {"startTime": "2026-11-22T07:00:00Z"}), status=True)
    without = job_with()
    del without["spec"]["releaseRef"]
    with pytest.raises(RefusedError, match=r"spec\.releaseRef: Forbidden"):
        apply(api_client, namespace, without)


def test_a_revision_never_changes(api_client: client.ApiClient, namespace: str) -> None:
    apply(api_client, namespace, base("revision"))
    changed = base("revision")
    changed["spec"]["revision"] = 3
    with pytest.raises(RefusedError, match=r"spec: Forbidden: is immutable: a ModelRevision never changes"):
        apply(api_client, namespace, changed)
    apply(api_client, namespace, with_status(base("revision"), REVISION_STATUS), status=True)


def test_a_spec_may_not_hold_a_status_and_a_status_no_spec(api_client: client.ApiClient, namespace: str) -> None:
    stored = apply(api_client, namespace, job_with() | {"status": {"phase": "Succeeded"}})
    assert "status" not in stored


def test_status_is_stored_as_the_models_write_it_and_the_spec_stays(
    api_client: client.ApiClient, namespace: str
) -> None:
    for name, status in STATUSES.items():
        before = apply(api_client, namespace, base(name))
        after = apply(api_client, namespace, with_status(base(name), status), status=True)
        kind = KINDS[base(name)["kind"]]
        assert after["status"] == kind.model_validate(after).to_wire()["status"]
        assert after["status"].items() >= status.items()
        assert after["spec"] == before["spec"]
        assert after["metadata"]["generation"] == 1


def test_the_server_refuses_a_status_that_the_models_refuse(api_client: client.ApiClient, namespace: str) -> None:
    apply(api_client, namespace, base("job"))
    for status in ({"verdict": "Maybe"}, {"progress": {"stage": "x", "percent": 101, "lastUpdateTime": "now"}}):
        with pytest.raises(RefusedError):
            apply(api_client, namespace, with_status(base("job"), status), status=True)


def table(api_server: Cluster, namespace: str, kind: str, *options: str) -> dict[str, str]:
    """Return the one row of kubectl get, by column."""
    header, row = api_server.kubectl("get", kind, "-n", namespace, *options).splitlines()
    starts = [found.start() for found in re.finditer(r"\S+", header)]
    cells = [row[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return dict(zip(header.split(), cells, strict=True))


def test_kubectl_get_shows_what_people_look_at(
    api_server: Cluster, api_client: client.ApiClient, namespace: str
) -> None:
    for name, status in STATUSES.items():
        manifest = base(name)
        if name == "revision":
            manifest["spec"]["summary"] = JOB_STATUS["summary"]
        apply(api_client, namespace, manifest)
        apply(api_client, namespace, with_status(manifest, status), status=True)
    job = table(api_server, namespace, "compressionjobs")
    age = job.pop("AGE")
    assert age.endswith("s")
    assert job == {
        "NAME": "digits-cnn",
        "PHASE": "Succeeded",
        "PROGRESS": "100",
        "QUALITY": "accuracy -0.22pp",
        "SIZE": "-95.4%",
        "LATENCY": "0.41x",
        "VERDICT": "Pass",
        "REVISION": "2",
    }
    release = table(api_server, namespace, "mrel")
    assert release.items() >= {
        ("NAME", "digits"),
        ("CURRENT", "2"),
        ("LASTGOOD", "1"),
        ("ROLLBACKS", "0"),
        ("READY", "True"),
        ("STATUS", "serves revision 2"),
    }
    revision = table(api_server, namespace, "mrev")
    assert revision.items() >= {
        ("NAME", "digits-2"),
        ("RELEASE", "digits"),
        ("NUMBER", "2"),
        ("QUALITY", "accuracy -0.22pp"),
        ("SIZE", "-95.4%"),
        ("LATENCY", "0.41x"),
        ("GOOD", "True"),
    }
    assert table(api_server, namespace, "compj", "-o", "wide")["MESSAGE"] == "released as revision 2"


def test_the_category_shows_all_three(api_server: Cluster, api_client: client.ApiClient, namespace: str) -> None:
    for name in ("job", "release", "revision"):
        apply(api_client, namespace, base(name))
    shown = api_server.kubectl("get", "plimsoll", "-n", namespace, "-o", "name")
    assert len(shown.split()) == 3


def test_short_names_are_nobody_elses(api_server: Cluster) -> None:
    rows = api_server.kubectl("api-resources", "--no-headers").splitlines()
    short_names = [name for row in rows for name in row.split()[1].split(",") if len(row.split()) == 5]
    assert {"compj", "mrel", "mrev"} <= set(short_names)
    assert all(short_names.count(name) == 1 for name in ("compj", "mrel", "mrev"))


def test_every_field_is_explained(api_server: Cluster) -> None:
    for kind in ("compressionjobs", "modelreleases", "modelrevisions"):
        text = api_server.kubectl("explain", kind, "--recursive", "--api-version=plimsoll.dev/v1alpha1")
        assert "spec" in text
    explained = api_server.kubectl("explain", "compressionjobs.spec.steps.prune.amount")
    assert "above 0 and below 1" in explained


def test_a_stored_job_is_read_back_into_the_same_model(api_client: client.ApiClient, namespace: str) -> None:
    stored = apply(api_client, namespace, base("job"))
    read = CompressionJob.model_validate(stored)
    written = parse(base("job"))
    assert isinstance(written, CompressionJob)
    assert read.spec == written.spec


def test_kubectl_itself_takes_what_we_say_it_takes(api_server: Cluster, namespace: str) -> None:
    manifest = job_with(seed=7.0)
    manifest["spec"]["gates"][2]["maxRatio"] = 1.0
    for how in ([], ["--server-side", "--force-conflicts"]):
        api_server.kubectl("apply", *how, "-n", namespace, "-f", "-", stdin=yaml.safe_dump(manifest))
        stored = api_server.kubectl("get", "compj", "-n", namespace, "-o", "jsonpath={.items[0].spec.seed}")
        assert stored == "7"
