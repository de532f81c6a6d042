"""Who wrote what and when, from the API server's audit log and metrics."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from plimsoll_api import names

_WRITES = re.compile(r'^apiserver_request_total\{[^}]*verb="(POST|PUT|PATCH|DELETE|APPLY)"[^}]*\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Write:
    """One write that the API server answered."""

    user: str
    verb: str
    kind: str
    """The resource, with its subresource after a slash."""
    namespace: str
    name: str
    code: int
    time: float


def read(file: Path) -> list[Write]:
    """Return the logged writes."""
    return list(_parse(file))


def writes_by_kind(writes: list[Write], user: str) -> Counter[str]:
    """Return how often the user wrote each kind, by `verb kind`, refused ones set apart."""
    return Counter(
        f"{write.verb} {write.kind}" + (f" ({write.code})" if write.code >= 400 else "")
        for write in writes
        if write.user == user
    )


@dataclass(frozen=True)
class Milestones:
    """When the objects of one job were made; None for those that never were."""

    job: float | None
    plan: float | None
    compress: float | None
    evaluate: float | None


def milestones(writes: list[Write], jobs: list[str]) -> dict[str, Milestones]:
    """Return the milestones of each job."""
    made = _creations(writes)
    return {job: _milestones(made, job) for job in jobs}


def count_all_writes(metrics: str) -> float:
    """Return how many writes, of everyone, the API server has answered so far."""
    return sum(float(match[2]) for match in _WRITES.finditer(metrics))


def _creations(writes: list[Write]) -> dict[tuple[str, str], float]:
    return {(write.kind, write.name): write.time for write in writes if write.verb == "create" and write.code < 300}


def _milestones(made: dict[tuple[str, str], float], job: str) -> Milestones:
    return Milestones(
        job=made.get(("compressionjobs", job)),
        plan=made.get(("configmaps", names.plan_name(job))),
        compress=made.get(("jobs", names.stage_name(job, names.STAGE_COMPRESS))),
        evaluate=made.get(("jobs", names.stage_name(job, names.STAGE_EVALUATE))),
    )


def _parse(file: Path) -> Iterator[Write]:
    with file.open() as lines:
        for line in lines:
            event = json.loads(line)
            target = event.get("objectRef") or {}
            kind = target.get("resource", "")
            if target.get("subresource"):
                kind += f"/{target['subresource']}"
            yield Write(
                user=event["user"]["username"],
                verb=event["verb"],
                kind=kind,
                namespace=target.get("namespace", ""),
                name=target.get("name", ""),
                code=int((event.get("responseStatus") or {}).get("code", 0)),
                time=datetime.fromisoformat(event["stageTimestamp"]).timestamp(),
            )
