"""Uninstalling loses nothing: definitions and objects stay, and a later install goes on. Named to run last."""

from __future__ import annotations

import pytest
from tests.e2e.claims import Claim
from tests.e2e.helm import helm
from tests.e2e.kube import condition
from tests.e2e.way import HELM_RELEASE, JOB, RELEASE, RELEASES, SYSTEM, Way

pytestmark = pytest.mark.cluster


def test_an_uninstalled_operator_leaves_every_object_and_comes_back(way: Way, prepared: list[Claim]) -> None:
    jobs = [job["metadata"]["uid"] for job in way.kube.list(JOB)]
    release = way.kube.get(RELEASES, RELEASE)
    helm(way.cluster, "uninstall", HELM_RELEASE, "--namespace", SYSTEM, "--wait")
    assert not way.system.get("deployment", HELM_RELEASE)
    assert [job["metadata"]["uid"] for job in way.kube.list(JOB)] == jobs
    assert way.kube.get(RELEASES, RELEASE)["spec"] == release["spec"]

    assert all(claim.holds for claim in way.install())
    # Only an operator that works writes the status of a new object.
    way.kube.run(
        "apply",
        "-f",
        "-",
        stdin="{apiVersion: plimsoll.dev/v1alpha1, kind: ModelRelease, metadata: {name: later}}",
    )
    later = way.kube.wait(RELEASES, "later", lambda r: bool(condition(r, "Ready")), seconds=60)
    assert condition(later, "Ready")["reason"] == "NoRevision"
