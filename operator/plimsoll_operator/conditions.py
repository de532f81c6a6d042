"""Conditions: changed only where they change, so that transition times stay true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from plimsoll_api.reasons import ConditionType, Reason
from plimsoll_api.status import Condition
from plimsoll_operator.clock import format_time, parse_time

MAX_MESSAGE = 2048
ConditionStatus = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Say:
    """What one condition should say."""

    type: ConditionType
    status: bool
    reason: Reason
    message: str = ""


def put(conditions: Sequence[Condition], says: Sequence[Say], now: datetime, generation: int) -> list[Condition]:
    """Return the conditions with those named in `says` brought up to date, the others as they were."""
    by_type = {condition.type: condition for condition in conditions}
    for say in says:
        status: ConditionStatus = "True" if say.status else "False"
        old = by_type.get(say.type)
        since = old.last_transition_time if old and old.status == status else format_time(now)
        by_type[say.type] = Condition(
            type=say.type,
            status=status,
            reason=say.reason,
            message=say.message[:MAX_MESSAGE],
            last_transition_time=since,
            observed_generation=generation,
        )
    return list(by_type.values())


def find(conditions: Sequence[Condition], kind: ConditionType) -> Condition | None:
    """Return the condition of this type."""
    return next((condition for condition in conditions if condition.type == kind), None)


def is_true(conditions: Sequence[Condition], kind: ConditionType) -> bool:
    """Say whether there is a condition of this type and it is True."""
    condition = find(conditions, kind)
    return condition is not None and condition.status == "True"


def since(condition: Condition | None) -> datetime | None:
    """Return when the condition's status last changed."""
    return parse_time(condition.last_transition_time) if condition else None
