"""The audit of the watches: what the API server has, compared with what the watches told.

A watch can stop silently. The operator is alive only if every change that the API server already knew of one audit ago
has come through by now. It is a round trip through the watches themselves, without an object made for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plimsoll_operator.cluster.client import METADATA_ONLY, Cluster
from plimsoll_operator.cluster.errors import ClusterError
from plimsoll_operator.cluster.resources import Resource, version_number

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Watched:
    """One kind that a watch tells of."""

    resource: Resource
    selector: str
    told: Callable[[str, str], int | None]
    """The newest resource version that the watch told of an object; None when it told of none."""


class Audit:
    """Compares, for ever, and ends when a watch has lost something."""

    def __init__(self, cluster: Cluster, namespaces: Sequence[str | None], watched: Sequence[Watched]) -> None:
        self._cluster = cluster
        self._namespaces = namespaces
        self._watched = watched
        self._late: dict[tuple[str, str, str], int] = {}

    async def run(self) -> None:
        """Return when a change has not come through a watch from one audit to the next."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                lost = await self.look()
            except ClusterError as error:
                logger.warning("the watches could not be audited: %s", error)
                continue
            if lost:
                logger.error("the watch lost changes of %s", ", ".join(lost[:5]))
                return

    async def look(self) -> list[str]:
        """Return the objects whose change was late at the last look and has still not come."""
        late: dict[tuple[str, str, str], int] = {}
        for watched in self._watched:
            query = {"labelSelector": watched.selector} if watched.selector else {}
            for namespace in self._namespaces:
                pages = self._cluster.pages(watched.resource, namespace, query=query, accept=METADATA_ONLY)
                async for page in pages:
                    for item in page["items"] or []:
                        home, name = item["metadata"]["namespace"], item["metadata"]["name"]
                        version = version_number(item)
                        if (watched.told(home, name) or 0) < version:
                            late[(watched.resource.kind, home, name)] = version
        lost = [key for key, version in self._late.items() if key in late and self._unseen(key, version)]
        self._late = late
        return ["/".join(key) for key in lost]

    def _unseen(self, key: tuple[str, str, str], version: int) -> bool:
        kind, namespace, name = key
        watched = next(entry for entry in self._watched if entry.resource.kind == kind)
        return (watched.told(namespace, name) or 0) < version
