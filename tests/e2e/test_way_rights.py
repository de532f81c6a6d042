"""The operator's rights are its use: what it asked for in all other end-to-end tests is what the chart grants it.

Named to run last; the API server writes down every request of the operator.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from tests.e2e.claims import Claim
from tests.e2e.way import HELM_RELEASE, SYSTEM, Way

pytestmark = pytest.mark.cluster

Right = tuple[str, str, str]
ACCOUNT = f"system:serviceaccount:{SYSTEM}:{HELM_RELEASE}"
#: Granted, and used only on occasions that this test bed does not bring about, each with the occasion.
OCCASIONAL: dict[Right, str] = {
    ("plimsoll.dev", "compressionjobs", "delete"): "ttlSecondsAfterFinished",
    ("plimsoll.dev", "compressionjobs", "get"): "a write that someone else's write had overtaken",
    ("coordination.k8s.io", "leases", "create"): "a namespace that has had no operator yet",
    ("", "events", "list"): "a batch Job that gets no pod",
}


def granted(way: Way) -> set[Right]:
    """Return the rights that the chart's roles give, as the API server has them."""
    roles = json.loads(
        way.system.run("get", "clusterroles,roles", "-l", f"app.kubernetes.io/instance={HELM_RELEASE}", "-o", "json")
    )
    return {
        (group, resource, verb)
        for role in roles["items"]
        if role["metadata"]["name"].endswith(("-jobs", "-lease"))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def observed(log: Path, since: datetime) -> tuple[set[Right], list[str]]:
    """Return the rights that the operator used since then, and what it was refused."""
    used: set[Right] = set()
    refused: list[str] = []
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["user"]["username"] != ACCOUNT or datetime.fromisoformat(event["requestReceivedTimestamp"]) < since:
            continue
        target = event.get("objectRef", {})
        if event.get("responseStatus", {}).get("code") == 403:
            refused.append(event["verb"] + " " + event["requestURI"])
        elif target.get("resource"):
            resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
            used.add((target.get("apiGroup", ""), resource, event["verb"]))
    return used, refused


def test_the_operator_uses_every_right_and_asks_for_no_other(
    way: Way, prepared: list[Claim], session_began: datetime, request: pytest.FixtureRequest
) -> None:
    log = way.cluster.audit_log
    if log is None:
        pytest.skip("a given cluster: its audit log is not ours to read")
    used, refused = observed(log, session_began)
    assert not refused
    assert used <= granted(way)
    others = {item.path.name for item in request.session.items}
    if others >= {"test_jobs.py", "test_way.py"}:  # without them nothing was done that needs the rights
        assert granted(way) - used - OCCASIONAL.keys() == set()
