"""A re-evaluation as the operator orders it, and when what it orders is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.integration.stories import digest, good_report
from tests.operator.worlds import IMAGE, NOW, RELEASE_UID, orders, revision

from plimsoll_api.data import EvaluationData
from plimsoll_api.machine import Machine
from plimsoll_api.names import REQUEST_VARIABLE
from plimsoll_api.plan import EvaluationRequest
from plimsoll_api.release import ModelReleaseSpec, ModelReleaseStatus, Reevaluation
from plimsoll_api.report import Outcome, Summary
from plimsoll_api.status import ReportRef
from plimsoll_operator.actions import Create, Refusal
from plimsoll_operator.cluster.resources import MODEL_RELEASES
from plimsoll_operator.pods import Owner
from plimsoll_operator.release import build
from plimsoll_operator.release.decide import decide
from plimsoll_operator.release.revisions import Revision
from plimsoll_operator.release.snapshot import ReleaseSnapshot
from plimsoll_operator.release.wishes import evaluation_settings
from plimsoll_operator.reports import ReportReading
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


def serving(second: Revision, reevaluate: str | None = None) -> ReleaseSnapshot:
    """Return a release that serves its second revision."""
    return ReleaseSnapshot(
        namespace="ns",
        name="digits",
        uid=RELEASE_UID,
        generation=1,
        deleting=False,
        reevaluate=reevaluate,
        status=ModelReleaseStatus(current_revision=2),
        revisions=(revision(1, "baseline"), second),
    )


def test_one_that_is_refused_is_over_in_the_api_servers_words_and_holds_up_nothing() -> None:
    seen = serving(revision(2, "a"), reevaluate="now")
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


def test_one_on_another_kind_of_machine_says_what_differs() -> None:
    machine = Machine(processor="old", instruction_sets=["avx2"], threads=4, runtime="ort 1")
    for measured_on, says in (
        (machine, ["with avx512_vnni", "with 1 threads instead of 4"]),
        (machine.model_copy(update={"instruction_sets": ["avx2", "avx512_vnni"], "threads": 1}), []),
        (None, []),
    ):
        made = revision(2, "a")
        seen = serving(replace(made, spec=made.spec.model_copy(update={"measured_on": measured_on})), reevaluate="now")
        begun = ModelReleaseStatus.model_validate(decide(ModelReleaseSpec(), seen, IMAGE, NOW).status)
        ordered = decide(
            ModelReleaseSpec(), replace(seen, status=begun, evaluate=Stage(StageState.ABSENT, "e")), IMAGE, NOW
        )
        job = next(action.manifest for action in ordered.actions if isinstance(action, Create))
        request = EvaluationRequest.model_validate_json(request_of(job))
        summary = Summary(
            outcome=Outcome.DONE,
            reason="Done",
            message="",
            report_uri="pvc://models/out/reports/r",
            report_digest=digest("r"),
        )
        ended = replace(
            seen,
            status=begun,
            evaluate=Stage(StageState.DONE, "e", summary=summary),
            report=ReportReading(report=good_report(request)),
        )
        told = ModelReleaseStatus.model_validate(decide(ModelReleaseSpec(), ended, IMAGE, NOW).status).reevaluation
        assert told is not None
        assert told.measured_on is not None, told.message
        assert told.measured_on.processor == "puppet"
        assert [part for part in says if part not in told.message] == []
        assert ("another kind of machine" in told.message) == bool(says)


def request_of(job: dict[str, Any]) -> str:
    variables = job["spec"]["template"]["spec"]["containers"][0]["env"]
    return str(next(one["value"] for one in variables if one["name"] == REQUEST_VARIABLE))


def reevaluated(own: dict[str, Any], given: dict[str, Any]) -> tuple[ModelReleaseStatus, list[str]]:
    """Return the status and the orders where a release whose revision was made for `own` is measured on `given`."""
    made = revision(2, "a")
    data = EvaluationData.model_validate(own)
    made = replace(made, spec=made.spec.model_copy(update={"evaluation_data": data}))
    spec = ModelReleaseSpec.model_validate({"reevaluation": {"id": "autumn", "data": given}})
    seen = serving(made)
    begun = ModelReleaseStatus.model_validate(decide(spec, seen, IMAGE, NOW).status)
    later = replace(seen, status=begun, evaluate=Stage(StageState.ABSENT, "digits-reevaluate"))
    decision = decide(spec, later, IMAGE, NOW)
    return ModelReleaseStatus.model_validate(decision.status), orders(decision)


SINGLE = {"uri": "pvc://data/a.csv", "text": ["review"]}
PAIRS = {"uri": "pvc://data/b.csv", "text": ["premise", "hypothesis"]}
TABLE = {"uri": "pvc://data/a.csv", "inputs": ["width", "height"]}
FOLDER = {"uri": "pvc://data/photos", "images": {"mode": "Grayscale", "resize": 32, "crop": 32}}
CLASSES = {"uri": "pvc://data/a.csv", "classes": ["gloomy", "glad"]}


@pytest.mark.parametrize(
    ("own", "given", "says"),
    [
        (
            SINGLE,
            PAIRS,
            "spec.reevaluation.data.text: the data gives pairs of texts (text: two columns, maxLength: 128), "
            "revision 2 takes single texts (text: one column, maxLength: 128)",
        ),
        (PAIRS, SINGLE, "revision 2 takes pairs of texts"),
        (SINGLE, {"uri": "pvc://data/b.csv"}, "gives numbers (inputs, no text), revision 2 takes single texts"),
        ({"uri": "pvc://data/b.npz"}, SINGLE, "revision 2 takes numbers (inputs, no text)"),
        (SINGLE | {"maxLength": 64}, SINGLE, "takes single texts (text: one column, maxLength: 64)"),
        (
            TABLE,
            TABLE | {"inputs": ["height", "width"]},
            "spec.reevaluation.data.inputs: [height, width] are given, revision 2 takes [width, height] in this order",
        ),
        (CLASSES, CLASSES | {"classes": ["glad", "gloomy"]}, "spec.reevaluation.data.classes: revision 2 takes those"),
        (FOLDER, {"uri": "pvc://data/new"}, "data.images: revision 2 takes images as its job read them"),
    ],
)
def test_data_of_another_kind_than_the_jobs_is_refused_before_any_pod(
    own: dict[str, Any], given: dict[str, Any], says: str
) -> None:
    status, ordered = reevaluated(own, given)
    told = status.reevaluation
    assert told is not None
    assert says in told.message
    assert (told.reason, told.verdict) == ("ReevaluationError", None)
    assert told.completion_time is not None
    assert told.request_digest in status.reevaluated
    assert (status.current_revision, status.rejected) == (2, [])
    assert not [order for order in ordered if order.startswith("create digits-re")]


@pytest.mark.parametrize(
    ("own", "given"),
    [
        (SINGLE, {"uri": "pvc://data/b.parquet", "text": ["sentence"], "maxLength": 128}),
        (TABLE, {"uri": "pvc://data/b.npz"}),
        (FOLDER, FOLDER | {"uri": "pvc://data/new"}),
        (FOLDER, {"uri": "pvc://data/new.npz"}),
        (CLASSES, {"uri": "pvc://data/new.csv"}),
    ],
)
def test_data_of_the_jobs_kind_is_measured(own: dict[str, Any], given: dict[str, Any]) -> None:
    status, ordered = reevaluated(own, given)
    assert status.reevaluation is not None
    assert status.reevaluation.completion_time is None
    assert ordered[0].startswith("create digits-")


@pytest.mark.parametrize(("asked", "expected"), [(None, False), (True, True), (False, False)])
def test_a_wish_may_accept_a_baseline_that_fails_on_its_data(asked: bool | None, expected: bool) -> None:
    settings = evaluation_settings(Reevaluation(id="new", accept_baseline=asked), revision(2, "candidate"))
    assert settings.accept_baseline is expected
    assert evaluation_settings(None, revision(2, "candidate")) == revision(2, "candidate").spec.evaluation
