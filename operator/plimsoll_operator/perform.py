"""All writes: the actions of a decision, then the status in one patch, then what follows from it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from plimsoll_api import names
from plimsoll_operator.actions import Action, Announce, Create, Decision, Delete, Patch, status_patch
from plimsoll_operator.clock import Clock, format_time
from plimsoll_operator.cluster.client import Cluster
from plimsoll_operator.cluster.errors import AlreadyExistsError, NotFoundError
from plimsoll_operator.cluster.resources import BATCH_JOBS, EVENTS, Json, Resource
from plimsoll_operator.mirror import Mirror

logger = logging.getLogger(__name__)
MAX_EVENT_MESSAGE = 1000


class Performer:
    """Carries out decisions about objects of ours and keeps the mirror abreast of what it wrote."""

    def __init__(self, cluster: Cluster, mirror: Mirror, clock: Clock, identity: str) -> None:
        self._cluster = cluster
        self._mirror = mirror
        self._clock = clock
        self._identity = identity

    async def perform(self, resource: Resource, body: Json, decision: Decision) -> None:
        """Carry out the decision that was taken on this reading of the object.

        Raises AlreadyExistsError or ConflictError when the cluster is not as it was observed: observe and decide again.
        """
        await self._all(resource, body, decision.actions)
        changes = status_patch(body.get("status") or {}, decision.status)
        if changes:
            metadata = body["metadata"]
            patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": changes}
            written = await self._cluster.patch(
                resource, metadata["namespace"], metadata["name"], patch, subresource="status"
            )
            self._mirror.put(resource, written)
        await self._all(resource, body, decision.afterwards)

    async def _all(self, resource: Resource, body: Json, actions: Sequence[Action]) -> None:
        namespace = body["metadata"]["namespace"]
        for action in actions:
            if isinstance(action, Announce):
                await self._announce(resource, body, action)
                continue
            if isinstance(action, Create):
                created = await self._cluster.create(action.resource, namespace, action.manifest)
                name = created["metadata"]["name"]
                self._keep(action.resource, created)
            elif isinstance(action, Patch):
                name = action.name
                patched = await self._cluster.patch(
                    action.resource, namespace, name, action.body, subresource=action.subresource
                )
                self._keep(action.resource, patched)
            else:
                name = action.name
                await self._delete(namespace, action)
            logger.info(
                "%s %s %s: %s",
                type(action).__name__.lower(),
                action.resource.kind,
                name,
                action.why,
                extra={"namespace": namespace, "owner": body["metadata"]["name"]},
            )

    def _keep(self, resource: Resource, written: Json) -> None:
        if resource == BATCH_JOBS:
            self._mirror.put_batch_job(written)

    async def _delete(self, namespace: str, action: Delete) -> None:
        try:
            await self._cluster.delete(action.resource, namespace, action.name, action.uid)
        except NotFoundError:
            return

    async def _announce(self, resource: Resource, body: Json, action: Announce) -> None:
        """Write an Event. Its name is the digest of what it says about whom, so that it is never there twice."""
        metadata = body["metadata"]
        message = action.message[:MAX_EVENT_MESSAGE]
        digest = hashlib.sha256(f"{metadata['uid']} {action.reason} {message}".encode()).hexdigest()[:16]
        now = format_time(self._clock())
        event = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {
                "name": f"{metadata['name'][:200]}.{digest}",
                "namespace": metadata["namespace"],
                "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY},
            },
            "involvedObject": {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": action.type,
            "reason": action.reason,
            "message": message,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": "plimsoll-operator"},
            "reportingComponent": "plimsoll-operator",
            "reportingInstance": self._identity,
        }
        try:
            await self._cluster.create(EVENTS, metadata["namespace"], event)
        except AlreadyExistsError:
            return
