"""Time as the API writes it. Now is always passed in as an argument."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """Return now, in UTC."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """Return the moment as RFC 3339, in whole seconds, as conditions have it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime | None:
    """Return the moment that an RFC 3339 text says; nothing when there is none."""
    return datetime.fromisoformat(text) if text else None
