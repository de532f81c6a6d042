"""ModelReleases on the real API server: the pointer, pins, re-evaluations and the way back."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.integration.operator_run import OperatorRun, Space
from tests.integration.puppet import Act, Puppet, wait_for
from tests.integration.stories import (
    all_well,
    compression_job,
    digest,
    good_report,
    measured,
    model_release,
    request_of,
    stage_of,
    went_wrong,
)

from plimsoll_api import names

pytestmark = pytest.mark.apiserver


def reevaluated(lost: int, *, intact: bool = True) -> Any:
    """Return the script in which jobs go well and a re-evaluation loses this many answers."""

    def script(pod: dict[str, Any]) -> Act:
        if stage_of(pod) == "reevaluate":
            return measured(good_report(request_of(pod), lost=lost, intact=intact))
        return all_well(pod)

    return script


def wish(space: Space, name: str, release: str = "digits") -> dict[str, Any]:
    """Ask for a re-evaluation and return what became of it."""
    space.annotate("ModelRelease", release, names.ANNOTATION_REEVALUATE, name)
    return ended(space, name, release)


def ended(space: Space, name: str, release: str = "digits") -> dict[str, Any]:
    """Return the re-evaluation of this id once it has ended."""

    def told() -> dict[str, Any] | None:
        status: dict[str, Any] = space.status("ModelRelease", release).get("reevaluation") or {}
        return status if status.get("id") == name and status.get("completionTime") else None

    return dict(wait_for(told))


@pytest.fixture
def released(space: Space, operator: OperatorRun, puppet: Puppet) -> Space:
    """A namespace with a release that serves revision 2 and can go back to the baseline."""
    assert operator.process
    space.create(model_release("digits"))
    space.create(compression_job("one", releaseRef={"name": "digits"}))
    space.wait_phase("one", "Succeeded")
    wait_for(lambda: (space.config_map("digits-model") or {}).get("revision") == "2")
    return space


def test_a_failed_reevaluation_goes_back_within_ten_seconds(released: Space, puppet: Puppet) -> None:
    puppet.script = lambda pod: Act(exit_code=None)
    released.annotate("ModelRelease", "digits", names.ANNOTATION_REEVALUATE, "shifted")
    pod = wait_for(lambda: next((name for name in puppet.acted if "reevaluate" in name), None))
    report = good_report(request_of(puppet.seen[pod]), lost=400)
    reported = time.monotonic()
    puppet.finish(released.name, pod, measured(report))
    wait_for(lambda: (released.config_map("digits-model") or {}).get("revision") == "1", 10)
    assert time.monotonic() - reported < 10
    status = released.status("ModelRelease", "digits")
    assert (status["currentRevision"], status["rollbacks"]) == (1, 1)
    assert [item["digest"] for item in status["rejected"]] == [digest("candidate-one")]
    assert status["reevaluation"]["reason"] == "RolledBack"
    assert released.conditions("ModelRelease", "digits")["RolledBack"] == ("True", "RolledBack")
    good = wait_for(lambda: [revision_good(released, number) for number in (1, 2)] == [True, False])
    assert good
    assert [reason for reason, _ in released.events("digits")] == ["RolledBack"]


def revision_good(space: Space, number: int) -> bool | None:
    """Return what the revision's condition Good says."""
    told = space.conditions("ModelRevision", f"digits-{number}").get("Good")
    return None if told is None else told[0] == "True"


def test_a_rejected_artifact_is_not_released_again(released: Space, puppet: Puppet) -> None:
    puppet.script = reevaluated(400)
    wish(released, "shifted")
    puppet.script = lambda pod: (
        Act(message=all_well_as(pod, "one").message) if stage_of(pod) == "compress" else all_well(pod)
    )
    released.create(compression_job("again", releaseRef={"name": "digits"}))
    released.wait_phase("again", "Rejected")
    assert released.conditions("CompressionJob", "again")["Released"] == ("False", "DigestRejected")
    assert released.status("ModelRelease", "digits")["currentRevision"] == 1
    released.create(compression_job("other", releaseRef={"name": "digits"}))
    puppet.script = all_well


def all_well_as(pod: dict[str, Any], job: str) -> Act:
    """Return what the pod would tell if it were the job's."""
    return all_well(
        {**pod, "metadata": {**pod["metadata"], "labels": {**pod["metadata"]["labels"], names.LABEL_JOB: job}}}
    )


def test_the_next_good_candidate_moves_on_after_a_rollback(released: Space, puppet: Puppet) -> None:
    puppet.script = reevaluated(400)
    wish(released, "shifted")
    released.create(compression_job("two", releaseRef={"name": "digits"}))
    assert released.wait_phase("two", "Succeeded")["revision"] == 3
    wait_for(lambda: (released.config_map("digits-model") or {}).get("revision") == "3")
    status = released.status("ModelRelease", "digits")
    assert (status["currentRevision"], status["lastGoodRevision"], status["rollbacks"]) == (3, 1, 1)
    assert released.conditions("ModelRelease", "digits")["RolledBack"][0] == "False"


def test_a_passed_reevaluation_moves_nothing_and_the_same_wish_is_carried_out_once(
    released: Space, puppet: Puppet, operator: OperatorRun
) -> None:
    puppet.script = reevaluated(3)
    told = wish(released, "monday")
    assert (told["verdict"], told["reason"], told["revision"]) == ("Pass", "ReevaluationPassed", 2)
    released.change("ModelRelease", "digits", reevaluation={"id": "tuesday", "data": {"uri": "pvc://data/new.npz"}})
    assert ended(released, "tuesday")["verdict"] == "Pass"
    asked = request_of(puppet.seen[[name for name in puppet.acted if "reevaluate" in name][-1]])
    assert asked.data.uri == "pvc://data/new.npz"
    assert asked.fallback is not None
    assert asked.fallback.digest == digest("baseline")
    operator.stop()
    operator.start()
    released.change("ModelRelease", "digits", pinnedRevision=2)
    wait_for(lambda: released.conditions("ModelRelease", "digits")["Ready"] == ("True", "Pinned"))
    assert len([name for name in puppet.acted if "reevaluate" in name]) == 2
    assert released.status("ModelRelease", "digits")["currentRevision"] == 2


def test_an_undecided_or_broken_reevaluation_moves_nothing(released: Space, puppet: Puppet) -> None:
    puppet.script = reevaluated(36)
    assert wish(released, "unsure")["reason"] == "ReevaluationInconclusive"
    puppet.script = lambda pod: went_wrong("spec.reevaluation.data.uri: no such file")
    told = wish(released, "broken")
    assert told["reason"] == "ReevaluationError"
    assert "no such file" in told["message"]
    assert "verdict" not in told
    assert (released.config_map("digits-model") or {})["revision"] == "2"
    assert released.status("ModelRelease", "digits").get("rejected", []) == []


def test_a_reevaluation_whose_pod_is_invalid_ends_in_words_and_holds_up_nothing(released: Space) -> None:
    runtime = {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}
    released.change("ModelRelease", "digits", reevaluation={"id": "invalid", "runtime": runtime})
    told = ended(released, "invalid")
    assert told["reason"] == "ReevaluationError"
    assert "cpu limit of 1" in told["message"]
    released.create(compression_job("two", releaseRef={"name": "digits"}))
    wait_for(lambda: (released.config_map("digits-model") or {}).get("revision") == "3", 40)


def test_a_damaged_fallback_is_not_gone_back_to(released: Space, puppet: Puppet) -> None:
    puppet.script = reevaluated(400, intact=False)
    told = wish(released, "shifted")
    assert (told["verdict"], told["reason"]) == ("Fail", "FallbackDamaged")
    assert (released.config_map("digits-model") or {})["revision"] == "2"
    assert released.conditions("ModelRelease", "digits")["Stalled"] == ("True", "FallbackDamaged")
    puppet.script = reevaluated(400)
    assert wish(released, "again")["reason"] == "RolledBack"


def test_a_pinned_revision_is_never_moved(released: Space, puppet: Puppet) -> None:
    released.change("ModelRelease", "digits", pinnedRevision=2)
    wait_for(lambda: released.conditions("ModelRelease", "digits")["Ready"] == ("True", "Pinned"))
    puppet.script = reevaluated(400)
    told = wish(released, "shifted")
    assert (told["verdict"], told["reason"]) == ("Fail", "ReevaluationFailed")
    status = released.status("ModelRelease", "digits")
    assert (status["currentRevision"], status.get("rollbacks", 0)) == (2, 0)
    released.create(compression_job("two", releaseRef={"name": "digits"}))
    released.wait_phase("two", "Succeeded")
    assert (released.config_map("digits-model") or {})["revision"] == "2"
    released.change("ModelRelease", "digits", pinnedRevision=1)
    wait_for(lambda: (released.config_map("digits-model") or {}).get("revision") == "1")
    released.change("ModelRelease", "digits", pinnedRevision=None)
    wait_for(lambda: (released.config_map("digits-model") or {}).get("revision") == "3")


def test_a_pin_to_nothing_is_told_and_moves_nothing(released: Space) -> None:
    released.change("ModelRelease", "digits", pinnedRevision=9)
    wait_for(lambda: released.conditions("ModelRelease", "digits")["Stalled"] == ("True", "PinnedRevisionNotFound"))
    assert (released.config_map("digits-model") or {})["revision"] == "2"


@pytest.mark.usefixtures("operator", "puppet")
def test_a_config_map_of_someone_else_is_left_alone(space: Space) -> None:
    space.core.create_namespaced_config_map(space.name, {"metadata": {"name": "digits-model"}, "data": {"mine": "yes"}})
    space.create(model_release("digits"))
    space.create(compression_job("one", releaseRef={"name": "digits"}))
    space.wait_phase("one", "Succeeded")
    wait_for(lambda: space.conditions("ModelRelease", "digits").get("Stalled") == ("True", "NameTaken"))
    assert space.config_map("digits-model") == {"mine": "yes"}


@pytest.mark.usefixtures("operator")
def test_a_release_without_revisions_says_so(space: Space) -> None:
    space.create(model_release("empty"))
    wait_for(lambda: space.conditions("ModelRelease", "empty").get("Ready") == ("False", "NoRevision"))
    assert space.config_map("empty-model") is None
