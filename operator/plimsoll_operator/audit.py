"""The audit of the watches: what the API server has, compared with what the watches told.

A watch can stop silently. It is dead when a change that the API server knew of at the last audit has still not come
through and nothing else of that kind has either; a watch that does tell, but lags, is given longer. It is a round trip
through the watches themselves, without an object made for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from plimsoll_operator.cluster.client import METADATA_ONLY, Cluster
from plimsoll_operator.cluster.errors import ClusterError
from plimsoll_operator.cluster.resources import Resource, version_number

logger = logging.getLogger(__name__)

#: Audits that a change may be late while the watch tells of others: it is behind, as with thousands of new objects.
PATIENCE = 15


@dataclass(frozen=True, slots=True)
class Watched:
    """One kind that a watch tells of."""

    resource: Resource
    selector: str
    told: Callable[[str, str], int | None]
    """The newest resource version that the watch told of an object; None when it told of none."""
    heard: Callable[[], int]
    """How often the watch told of anything."""


@dataclass(frozen=True, slots=True)
class _Late:
    """A change that has not come through the watch yet."""

    version: int
    audits: int
    heard: int


class Audit:
    """Compares, for ever, and ends when a watch has lost something."""

    def __init__(
        self,
        cluster: Cluster,
        namespaces: Sequence[str | None],
        watched: Sequence[Watched],
        *,
        interval_seconds: float,
    ) -> None:
        self._cluster = cluster
        self._namespaces = namespaces
        self._watched = watched
        self._interval_seconds = interval_seconds
        self._late: dict[tuple[str, str, str], _Late] = {}

    async def run(self) -> None:
        """Return when a watch is found dead."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            try:
                lost = await self.look()
            except ClusterError as error:
                logger.warning("the watches could not be audited: %s", error)
                continue
            if lost:
                logger.error("the watch lost changes of %s", ", ".join(lost[:5]))
                return

    async def look(self) -> list[str]:
        """Return the objects whose change must be taken for lost."""
        late: dict[tuple[str, str, str], _Late] = {}
        lost: list[str] = []
        for watched in self._watched:
            heard = watched.heard()
            async for namespace, name, version in self._versions(watched):
                if (watched.told(namespace, name) or 0) >= version:
                    continue
                key = (watched.resource.kind, namespace, name)
                before = self._late.get(key)
                # A newer change of an object that was late already is late since then.
                late[key] = _Late(version, before.audits + 1 if before else 1, heard)
                silent = before is not None and heard == before.heard
                if silent or late[key].audits > PATIENCE:
                    lost.append("/".join(key))
        self._late = late
        return lost

    async def _versions(self, watched: Watched) -> AsyncIterator[tuple[str, str, int]]:
        query = {"labelSelector": watched.selector} if watched.selector else {}
        for namespace in self._namespaces:
            pages = self._cluster.pages(watched.resource, namespace, query=query, accept=METADATA_ONLY)
            async for page in pages:
                for item in page["items"] or []:
                    yield item["metadata"]["namespace"], item["metadata"]["name"], version_number(item)
