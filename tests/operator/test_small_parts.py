"""The small parts that decisions rest on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.integration.stories import digest
from tests.operator.worlds import NOW, report

from plimsoll_api.model import canonical_json
from plimsoll_api.reasons import ConditionType, Reason
from plimsoll_api.report import REPORT_MARK
from plimsoll_operator import conditions
from plimsoll_operator.actions import status_patch
from plimsoll_operator.claims import ClaimPath, volumes_of
from plimsoll_operator.clock import format_time
from plimsoll_operator.cluster.errors import (
    AlreadyExistsError,
    ConflictError,
    GoneError,
    NotFoundError,
    RefusedError,
    UnavailableError,
    error_of,
)
from plimsoll_operator.conditions import Say
from plimsoll_operator.reports import REPORT_LINES, find_report
from plimsoll_operator.settings import parse_settings

CONTENT = canonical_json(report().to_wire())
DIGEST = report().content_digest()
LINE = f"{REPORT_MARK} {CONTENT.decode()}"


@pytest.mark.parametrize(
    "log",
    [
        LINE,
        f"before\n{LINE}\nafter\n",
        f"{REPORT_MARK} {{}}\n{LINE}\n",
        "\n".join(LINE[start : start + 16 * 1024] for start in range(0, len(LINE), 16 * 1024)),
        "\n".join(LINE[start : start + 50] for start in range(0, len(LINE), 50)) + "\nlater words\n",
        LINE.replace("\n", "\r\n") + "\r\n",
    ],
    ids=["alone", "surrounded", "the last of two", "split at 16 KiB", "split finely", "carriage returns"],
)
def test_a_report_is_found_in_the_log(log: str) -> None:
    assert find_report(log, DIGEST).report == report()


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        ("", DIGEST),
        (LINE[100:], DIGEST),
        (LINE[:-1], DIGEST),
        (LINE, digest("another")),
        (LINE.replace("Image", "Imagf"), DIGEST),
    ],
    ids=["empty", "its beginning cut off", "its end cut off", "another digest", "changed"],
)
def test_no_other_bytes_are_believed(log: str, wanted: str) -> None:
    found = find_report(log, wanted)
    assert found.report is None
    assert found.problem


def test_a_report_of_another_schema_is_a_problem_not_a_crash() -> None:
    text = '{"schemaVersion":"v9"}'
    found = find_report(f"{REPORT_MARK} {text}", digest(text))
    assert found.report is None
    assert "schema" in found.problem


def test_enough_lines_are_read_for_the_largest_report() -> None:
    assert REPORT_LINES * 16 * 1024 >= 2 * 256 * 1024


def test_each_path_is_mounted_alone() -> None:
    volumes, mounts = volumes_of(["pvc://a/x.npz", "pvc://a/dir/y.npz", "pvc://b"], ["pvc://b/out"])
    assert volumes == [
        {"name": "claim-0", "persistentVolumeClaim": {"claimName": "a", "readOnly": True}},
        {"name": "claim-1", "persistentVolumeClaim": {"claimName": "b"}},
    ]
    root = "/var/plimsoll/claims"
    assert mounts == [
        {"name": "claim-0", "mountPath": f"{root}/a/dir/y.npz", "subPath": "dir/y.npz", "readOnly": True},
        {"name": "claim-0", "mountPath": f"{root}/a/x.npz", "subPath": "x.npz", "readOnly": True},
        {"name": "claim-1", "mountPath": f"{root}/b", "readOnly": True},
        {"name": "claim-1", "mountPath": f"{root}/b/out", "subPath": "out"},
    ]


def test_a_path_below_another_is_mounted_once() -> None:
    _, mounts = volumes_of(["pvc://a/out", "pvc://a/out/artifacts/1", "pvc://a/output"], [])
    assert [mount["subPath"] for mount in mounts] == ["out", "output"]


def test_what_is_both_read_and_written_is_writable() -> None:
    _, mounts = volumes_of(["pvc://a/out"], ["pvc://a/out"])
    assert [mount.get("readOnly", False) for mount in mounts] == [False]


@pytest.mark.parametrize("uri", ["s3://bucket/x", "pvc://a/../b", "pvc://a/./b"])
def test_no_other_path_is_mounted(uri: str) -> None:
    with pytest.raises(ValueError, match=r"pvc|\.\."):
        ClaimPath.parse(uri)


def test_a_status_patch_holds_only_what_changed() -> None:
    old = {"same": 1, "gone": 2, "deep": {"same": 1, "gone": 2, "new": 3}, "list": [1]}
    new = {"same": 1, "deep": {"same": 1, "new": 4}, "list": [1, 2]}
    assert status_patch(old, new) == {"gone": None, "deep": {"gone": None, "new": 4}, "list": [1, 2]}
    assert status_patch(new, new) == {}


def test_a_transition_time_changes_only_with_the_status() -> None:
    first = conditions.put([], [Say(ConditionType.READY, False, Reason.PENDING)], NOW, 1)
    later = NOW + timedelta(hours=1)
    second = conditions.put(first, [Say(ConditionType.READY, False, Reason.COMPRESSING, "now")], later, 2)
    third = conditions.put(second, [Say(ConditionType.READY, True, Reason.RELEASED)], later, 2)
    assert second[0].last_transition_time == format_time(NOW)
    assert (second[0].reason, second[0].observed_generation) == ("Compressing", 2)
    assert third[0].last_transition_time == format_time(later)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {}, NotFoundError),
        (409, {"reason": "AlreadyExists"}, AlreadyExistsError),
        (409, {"reason": "Conflict"}, ConflictError),
        (410, {}, GoneError),
        (400, {"reason": "Expired"}, GoneError),
        (403, {}, RefusedError),
        (422, {}, RefusedError),
        (429, {}, UnavailableError),
        (503, {}, UnavailableError),
    ],
)
def test_answers_are_told_apart_by_who_must_act(status: int, body: dict[str, str], kind: type[Exception]) -> None:
    assert type(error_of(status, body, None)) is kind


def test_settings_come_from_flags_then_the_environment() -> None:
    environment = {"PLIMSOLL_JOB_IMAGE": "from/environment", "POD_NAMESPACE": "home", "POD_NAME": "me"}
    settings = parse_settings(["--namespaces", "a, b", "--leader-election", "false"], environment)
    assert settings.namespaces == ("a", "b")
    assert settings.job_image == "from/environment"
    assert (settings.lease_namespace, settings.identity, settings.leader_election) == ("home", "me", False)
    assert parse_settings(["--job-image", "flag"], environment).job_image == "flag"
