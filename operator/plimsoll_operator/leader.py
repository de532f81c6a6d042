"""Leader by Lease: only who holds it works, and who loses it stops at once."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from plimsoll_operator.clock import Clock
from plimsoll_operator.cluster.client import Cluster
from plimsoll_operator.cluster.errors import AlreadyExistsError, ClusterError, ConflictError, NotFoundError
from plimsoll_operator.cluster.resources import LEASES, Json

logger = logging.getLogger(__name__)

DURATION_SECONDS = 30
#: The lease is given up this long before others may take it: by then whatever is on its way has ended.
MARGIN_SECONDS = 10.0
RENEW_SECONDS = 5.0
RETRY_SECONDS = 2.0


class Lease:
    """One Lease in the cluster, as coordination.k8s.io has it.

    Another holder is believed alive until its record has stood unchanged for its whole duration on our own clock, so
    that clocks that differ do no harm.
    """

    def __init__(self, cluster: Cluster, namespace: str, name: str, identity: str, clock: Clock) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._seen: tuple[str, float] = ("", 0.0)
        self.answered = asyncio.Event()
        """The API server has answered, whoever holds the Lease."""

    async def acquire(self) -> None:
        """Return once this operator holds the Lease."""
        while True:
            try:
                if await self._try():
                    logger.info("holding the lease %s/%s", self._namespace, self._name)
                    return
            except ClusterError as error:
                logger.warning("the lease cannot be had: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    async def hold(self) -> None:
        """Renew the Lease; return when it is lost, or may be because it could not be renewed in time."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with asyncio.timeout(DURATION_SECONDS - MARGIN_SECONDS):
                    if not await self._try():
                        logger.error("another operator took the lease")
                        return
                renewed = loop.time()
            except (ClusterError, TimeoutError) as error:
                logger.warning("the lease was not renewed: %s", error or "timeout")
            if loop.time() - renewed > DURATION_SECONDS - MARGIN_SECONDS:
                logger.error("the lease could not be renewed in time")
                return

    async def release(self) -> None:
        """Give the Lease up, so that the next operator need not wait."""
        try:
            found = await self._cluster.get(LEASES, self._namespace, self._name)
            if found["spec"].get("holderIdentity") == self._identity:
                await self._write(found, {"holderIdentity": "", "leaseDurationSeconds": 1})
        except ClusterError as error:
            logger.warning("the lease was not given up: %s", error)

    async def _try(self) -> bool:
        try:
            found = await self._cluster.get(LEASES, self._namespace, self._name)
        except NotFoundError:
            self.answered.set()
            return await self._create()
        self.answered.set()
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._stale(found):
            return False
        try:
            now = _micro_time(self._clock())
            changes: Json = {"renewTime": now, "leaseDurationSeconds": DURATION_SECONDS}
            if holder != self._identity:
                transitions = (spec.get("leaseTransitions") or 0) + 1
                changes |= {"holderIdentity": self._identity, "acquireTime": now, "leaseTransitions": transitions}
            await self._write(found, changes)
        except ConflictError:
            return False
        return True

    def _stale(self, lease: Json) -> bool:
        version = lease["metadata"]["resourceVersion"]
        now = asyncio.get_running_loop().time()
        if self._seen[0] != version:
            self._seen = (version, now)
        duration = timedelta(seconds=lease["spec"].get("leaseDurationSeconds") or DURATION_SECONDS)
        return now - self._seen[1] > duration.total_seconds()

    async def _write(self, lease: Json, changes: Json) -> None:
        body = {"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}, "spec": changes}
        await self._cluster.patch(LEASES, self._namespace, self._name, body)

    async def _create(self) -> bool:
        now = _micro_time(self._clock())
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": DURATION_SECONDS,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }
        try:
            await self._cluster.create(LEASES, self._namespace, body)
        except AlreadyExistsError:
            return False
        return True


def _micro_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
