"""The way that `make demo` shows, asserted claim by claim. The tests run in order; each needs those before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.claims import Claim
from tests.e2e.prometheus import Prometheus, scraping
from tests.e2e.way import GOOD, HELM_RELEASE, JOB, RELEASE, RELEASES, REVISIONS, Way

pytestmark = pytest.mark.cluster


def check(claims: list[Claim]) -> None:
    wrong = [f"{claim.text}: {claim.observed}" for claim in claims if not claim.holds]
    assert claims
    assert not wrong


@pytest.fixture(scope="module")
def prometheus(way: Way, prepared: list[Claim]) -> Iterator[Prometheus]:
    with way.system.reach(f"{HELM_RELEASE}-metrics", 8080) as target, scraping(target) as prometheus:
        yield prometheus


class TestWay:
    def test_the_operator_is_installed_by_helm(self, installed: list[Claim]) -> None:
        check(installed)

    def test_a_model_is_trained_in_the_cluster(self, prepared: list[Claim]) -> None:
        check(prepared)

    def test_a_job_that_passes_is_released(self, way: Way, prometheus: Prometheus) -> None:
        check(way.release_a_good_one())

    def test_a_job_that_prunes_too_much_is_rejected(self, way: Way) -> None:
        check(way.reject_a_bad_one())

    def test_a_failed_reevaluation_is_rolled_back(self, way: Way) -> None:
        check(way.roll_back())

    def test_prometheus_saw_it(self, way: Way, prometheus: Prometheus) -> None:
        check(way.read_metrics(prometheus))

    def test_deleting_the_job_deletes_its_children_and_keeps_the_revisions(self, way: Way) -> None:
        way.kube.run("delete", JOB, GOOD, "--wait")
        mine = f"plimsoll.dev/compression-job={GOOD}"
        for kind in ("jobs.batch", "configmaps", "pods"):
            way.kube.wait_gone(kind, mine, seconds=60)
        assert {r["metadata"]["name"] for r in way.kube.list(REVISIONS)} == {f"{RELEASE}-1", f"{RELEASE}-2"}
        assert way.kube.get(RELEASES, RELEASE)["status"]["currentRevision"] == 1
