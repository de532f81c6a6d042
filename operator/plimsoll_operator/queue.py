"""The level-triggered queue: one entry an object, however often it is added; delays; back-off after failures."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from plimsoll_operator.mirror import Key

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0


class WorkQueue:
    """Hands each key to one worker at a time; what is added meanwhile is handed out once more afterwards.

    Urgent keys go first: a rollback does not wait behind a thousand new jobs.
    """

    def __init__(self, *, urgent_kinds: frozenset[str] = frozenset()) -> None:
        self._urgent_kinds = urgent_kinds
        self._urgent: OrderedDict[Key, None] = OrderedDict()
        self._ready: OrderedDict[Key, None] = OrderedDict()
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._waiting = asyncio.Semaphore(0)

    def __len__(self) -> int:
        return len(self._urgent) + len(self._ready)

    def add(self, key: Key) -> None:
        """Hand the key out as soon as possible."""
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
        if key in self._active:
            self._again.add(key)
            return
        lane = self._urgent if key.kind in self._urgent_kinds else self._ready
        if key not in lane:
            lane[key] = None
            self._waiting.release()

    def add_after(self, key: Key, seconds: float) -> None:
        """Hand the key out after a while, or sooner when it is added for another reason; the earliest wish holds."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    async def get(self) -> Key:
        """Return the next key; the caller must call done or failed with it."""
        await self._waiting.acquire()
        lane = self._urgent or self._ready
        key, _ = lane.popitem(last=False)
        self._active.add(key)
        return key

    def done(self, key: Key) -> None:
        """Give the key back after a success."""
        self._failures.pop(key, None)
        self._give_back(key)

    def failed(self, key: Key, at_least_seconds: float = 0.0) -> float:
        """Give the key back after a failure; return after how many seconds it is handed out again."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        seconds = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 20), LONGEST_BACKOFF_SECONDS)
        seconds = max(seconds, at_least_seconds)
        self._again.discard(key)
        self._give_back(key)
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: Key) -> None:
        """Drop all that is remembered of an object that is gone."""
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
        self._failures.pop(key, None)

    def _due(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)

    def _give_back(self, key: Key) -> None:
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
