"""A re-evaluation as the operator orders it, and when what it orders is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.integration.stories import digest
from tests.operator.worlds import IMAGE, NOW, RELEASE_UID, orders, revision

from plimsoll_api.release import ModelReleaseSpec, ModelReleaseStatus
from plimsoll_api.status import ReportRef
from plimsoll_operator.actions import Refusal
from plimsoll_operator.cluster.resources import MODEL_RELEASES
from plimsoll_operator.pods import Owner
from plimsoll_operator.release import build
from plimsoll_operator.release.decide import decide
from plimsoll_operator.release.snapshot import ReleaseSnapshot
from plimsoll_operator.stage import Stage, StageState

OWNER = Owner(MODEL_RELEASES, "ns", "digits", RELEASE_UID)


def test_its_batch_jobs_are_collected_a_day_after_their_end() -> None:
    common: dict[str, Any] = {"owner": OWNER, "wish": None, "revision": revision(2, "a"), "default_image": IMAGE}
    report = ReportRef(uri="pvc://models/out/reports/r.json", digest=digest("r"))
    jobs = [
        build.reevaluation_job(request_digest=digest("wish"), fallback=revision(1, "baseline"), **common),
        build.print_reevaluation_report(job_name="digits-again", report=report, **common),
    ]
    assert [job["spec"]["ttlSecondsAfterFinished"] for job in jobs] == [86_400, 86_400]


def test_one_that_is_refused_is_over_in_the_api_servers_words_and_holds_up_nothing() -> None:
    seen = ReleaseSnapshot(
        namespace="ns",
        name="digits",
        uid=RELEASE_UID,
        generation=1,
        deleting=False,
        reevaluate="now",
        status=ModelReleaseStatus(current_revision=2),
        revisions=(revision(1, "baseline"), revision(2, "a")),
    )
    begun = ModelReleaseStatus.model_validate(decide(ModelReleaseSpec(), seen, IMAGE, NOW).status)
    later = replace(
        seen,
        status=begun,
        revisions=(*seen.revisions, revision(3, "b")),
        evaluate=Stage(StageState.ABSENT, "digits-reevaluate"),
    )
    assert orders(decide(ModelReleaseSpec(), later, IMAGE, NOW))[0].startswith("create digits-")
    refused = replace(later, refused=Refusal("requests: more than the limit", invalid=True))
    decision = decide(ModelReleaseSpec(), refused, IMAGE, NOW)
    told = ModelReleaseStatus.model_validate(decision.status)
    assert told.reevaluation is not None
    assert (told.reevaluation.reason, told.reevaluation.verdict) == ("ReevaluationError", None)
    assert "more than the limit" in told.reevaluation.message
    assert told.current_revision == 3
    assert told.rejected == []
    assert orders(decision)[0] == "announce ReevaluationError"
