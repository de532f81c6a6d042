"""A re-evaluation as the operator orders it."""

from __future__ import annotations

from typing import Any

from tests.integration.stories import digest
from tests.operator.worlds import IMAGE, RELEASE_UID, revision

from plimsoll_api.status import ReportRef
from plimsoll_operator.cluster.resources import MODEL_RELEASES
from plimsoll_operator.pods import Owner
from plimsoll_operator.release import build

OWNER = Owner(MODEL_RELEASES, "ns", "digits", RELEASE_UID)


def test_its_batch_jobs_are_collected_a_day_after_their_end() -> None:
    common: dict[str, Any] = {"owner": OWNER, "wish": None, "revision": revision(2, "a"), "default_image": IMAGE}
    report = ReportRef(uri="pvc://models/out/reports/r.json", digest=digest("r"))
    jobs = [
        build.reevaluation_job(request_digest=digest("wish"), fallback=revision(1, "baseline"), **common),
        build.print_reevaluation_report(job_name="digits-again", report=report, **common),
    ]
    assert [job["spec"]["ttlSecondsAfterFinished"] for job in jobs] == [86_400, 86_400]
