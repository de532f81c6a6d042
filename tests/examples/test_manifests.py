"""Every manifest that people copy is taken by the API server, and by a namespace that admits restricted pods only."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster import Cluster, Mode, tool

from plimsoll_api.model import Model
from plimsoll_api.release import ModelReleaseSpec
from plimsoll_api.spec import CompressionJobSpec

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "examples").rglob("*.yaml"))
MODELS: dict[str, type[Model]] = {"CompressionJob": CompressionJobSpec, "ModelRelease": ModelReleaseSpec}


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def pods(path: Path) -> list[dict[str, Any]]:
    return [d["spec"]["template"]["spec"] for d in documents(path) if d["kind"] in ("Job", "Deployment")]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_our_own_objects_keep_the_contract(path: Path) -> None:
    for document in documents(path):
        if model := MODELS.get(document["kind"]):
            model.model_validate(document["spec"])


def test_the_table_of_examples_holds_each_of_them() -> None:
    linked = re.findall(r"\]\(([^)]+\.yaml)\)", (ROOT / "examples" / "README.md").read_text())
    assert sorted(linked) == [str(path.relative_to(ROOT / "examples")) for path in MANIFESTS]


@pytest.mark.parametrize("path", [path for path in MANIFESTS if pods(path)], ids=lambda path: path.name)
def test_pods_hold_no_token_and_a_read_only_root(path: Path) -> None:
    for pod in pods(path):
        assert pod["automountServiceAccountToken"] is False
        assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in pod["containers"])


def test_claims_leave_the_storage_class_to_the_cluster() -> None:
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] == "PersistentVolumeClaim":
                assert "storageClassName" not in document["spec"]


@pytest.fixture(scope="module")
def api() -> Iterator[Cluster]:
    with Cluster.up("examples", mode=Mode.API_ONLY) as cluster:
        cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "examples", "labels": {
            "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted",
        }}}  # fmt: skip
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(namespace))
        yield cluster


@pytest.mark.apiserver
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_api_server_takes_it_without_a_warning(api: Cluster, path: Path) -> None:
    done = subprocess.run(
        [tool("kubectl"), "--kubeconfig", api.kubeconfig, "-n", "examples", "apply", "--dry-run=server", "-f", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
