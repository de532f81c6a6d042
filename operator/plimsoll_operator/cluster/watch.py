"""List and watch objects of one kind with a label selector, for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection

from plimsoll_operator.cluster.client import Cluster
from plimsoll_operator.cluster.errors import ClusterError, GoneError
from plimsoll_operator.cluster.resources import Json, Resource

logger = logging.getLogger(__name__)

SERVER_TIMEOUT_SECONDS = 300
#: The API server sends a bookmark about every minute, so that a longer silence means a dead connection.
SILENCE_SECONDS = 90.0
LONGEST_PAUSE_SECONDS = 30.0

ObjectName = tuple[str, str]


class Watch:
    """Tells `changed` and `removed` of every object that the selector matches, first those that are there.

    `known` returns the names that the receiver holds, so that what was deleted while nobody watched is told too.
    """

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource,
        namespace: str | None,
        selector: str,
        *,
        changed: Callable[[Json], None],
        removed: Callable[[str, str, str | None], None],
        known: Callable[[], Collection[ObjectName]],
    ) -> None:
        self._cluster = cluster
        self._resource = resource
        self._namespace = namespace
        self._selector = selector
        self._changed = changed
        self._removed = removed
        self._known = known
        self.listed = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled. After a failure it goes on where it was; after 410 it lists again."""
        version: str | None = None
        failures = 0
        while True:
            try:
                if version is None:
                    version = await self._list()
                    self.listed.set()
                async for reached in self._follow(version):
                    version, failures = reached, 0
            except GoneError:
                logger.info("the watch on %s is too old; listing again", self._resource.plural)
                version = None
            except ClusterError as error:
                failures += 1
                logger.warning("%s", error)
                await asyncio.sleep(min(2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS))

    async def _list(self) -> str:
        query = {"labelSelector": self._selector}
        seen: set[ObjectName] = set()
        version = ""
        async for page in self._cluster.pages(self._resource, self._namespace, query=query):
            version = page["metadata"]["resourceVersion"]
            for item in page["items"] or []:
                seen.add((item["metadata"]["namespace"], item["metadata"]["name"]))
                self._changed(item)
        for namespace, name in set(self._known()) - seen:
            if self._namespace in (None, namespace):
                self._removed(namespace, name, None)
        return version

    async def _follow(self, version: str) -> AsyncIterator[str]:
        query = {
            "labelSelector": self._selector,
            "resourceVersion": version,
            "timeoutSeconds": str(SERVER_TIMEOUT_SECONDS),
        }
        events = self._cluster.watch(self._resource, self._namespace, query=query, silence_seconds=SILENCE_SECONDS)
        async for event in events:
            obj = event["object"]
            metadata = obj["metadata"]
            if event["type"] == "DELETED":
                self._removed(metadata["namespace"], metadata["name"], metadata["uid"])
            elif event["type"] != "BOOKMARK":
                self._changed(obj)
            yield metadata["resourceVersion"]
