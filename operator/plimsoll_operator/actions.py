"""What a decision can order. Each action may be carried out twice and then is as if it had been once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from plimsoll_api.reasons import Reason
from plimsoll_operator.cluster.resources import Json, Resource


@dataclass(frozen=True, slots=True)
class Create:
    """Make an object of a deterministic name; that it exists is a reason to observe again."""

    resource: Resource
    manifest: Json
    why: str


@dataclass(frozen=True, slots=True)
class Patch:
    """Merge into an object, guarded by the resourceVersion that stands in the body."""

    resource: Resource
    name: str
    body: Json
    why: str
    subresource: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the object of this uid; that it is gone is fine."""

    resource: Resource
    name: str
    uid: str
    why: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Write an Event about the object; the same words about the same object are one Event."""

    reason: Reason
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


Action = Create | Patch | Delete | Announce


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API server said to an action that it did not take."""

    message: str
    invalid: bool
    """The object itself is wrong: the same would be refused for ever. Else it is not allowed, as yet."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now: first the actions, then the status in one patch, then what follows from it."""

    status: Json
    """The whole status as it should be, as JSON."""
    actions: tuple[Action, ...] = ()
    afterwards: tuple[Action, ...] = ()
    again_after_seconds: float | None = None
    measured: tuple[tuple[str, float], ...] = ()
    """Stages that ended with this decision, and how many seconds each ran."""
    verdict: str | None = None
    """The verdict that was given with this decision."""


def status_patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the merge patch that turns one status into the other; empty when they are the same."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            inner = status_patch(before, value)
            if inner:
                patch[key] = inner
        elif before != value:
            patch[key] = value
    return patch
