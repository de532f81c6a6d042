"""One object, once: observe, decide, perform; and again when the cluster was not as observed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from pydantic import ValidationError

from plimsoll_api.model import canonical_json
from plimsoll_api.reasons import Reason
from plimsoll_api.release import ModelReleaseSpec
from plimsoll_api.spec import CompressionJobSpec
from plimsoll_operator.actions import Decision, Refusal
from plimsoll_operator.clock import Clock
from plimsoll_operator.cluster.client import Cluster
from plimsoll_operator.cluster.errors import AlreadyExistsError, ConflictError, NotFoundError, RefusedError
from plimsoll_operator.cluster.resources import COMPRESSION_JOBS, MODEL_RELEASES, Json, Resource
from plimsoll_operator.job import decide as job_decide
from plimsoll_operator.job import observe as job_observe
from plimsoll_operator.job import tell
from plimsoll_operator.job.snapshot import Order
from plimsoll_operator.metrics import Metrics
from plimsoll_operator.mirror import Key, Mirror
from plimsoll_operator.perform import Performer
from plimsoll_operator.release import decide as release_decide
from plimsoll_operator.release import observe as release_observe

logger = logging.getLogger(__name__)

TRIES = 4
UNPROCESSABLE = 422


class Reconciler:
    """Brings one object at a time closer to what its spec says."""

    def __init__(
        self, cluster: Cluster, mirror: Mirror, metrics: Metrics, clock: Clock, *, job_image: str, identity: str
    ) -> None:
        self._cluster = cluster
        self._mirror = mirror
        self._metrics = metrics
        self._clock = clock
        self._job_image = job_image
        self._performer = Performer(cluster, mirror, clock, identity)
        self._looks = job_observe.Looks()

    async def reconcile(self, key: Key) -> float | None:
        """Reconcile the object and return after how many seconds it wants to be looked at again, if at all."""
        once = {COMPRESSION_JOBS.kind: self._job, MODEL_RELEASES.kind: self._release}.get(key.kind)
        if once is None:
            return None
        for attempt in range(TRIES):
            try:
                decision = await once(key, fresh=attempt > 0)
            except (AlreadyExistsError, ConflictError) as error:
                if attempt == TRIES - 1:
                    raise
                logger.info("%s %s: observing again: %s", key.kind, key.name, error)
                continue
            if decision is None:
                self._looks.forget(key.uid)
                return None
            self._count(key, decision)
            return decision.again_after_seconds
        return None

    async def _job(self, key: Key, *, fresh: bool) -> Decision | None:
        body = await job_observe.find(self._cluster, self._mirror, key, fresh=fresh)
        if body is None:
            return None
        now = self._clock()
        try:
            spec = _job_spec(canonical_json(body["spec"]))
        except ValidationError as error:
            return await self._refuse(body, error)
        order = Order(spec, self._job_image)
        snapshot = await job_observe.observe(self._cluster, self._mirror, self._looks, body, spec, now=now, fresh=fresh)

        def decide(refused: Refusal | None) -> Decision:
            return job_decide.decide(order, replace(snapshot, refused=refused), now)

        return await self._perform(COMPRESSION_JOBS, body, decide)

    async def _refuse(self, body: Json, error: ValidationError) -> Decision:
        """End a job whose spec passed the API server but not the model, naming the field."""
        first = error.errors()[0]
        field = ".".join(str(part) for part in ("spec", *first["loc"]))
        now = self._clock()
        snapshot = job_observe.known_snapshot(body, self._mirror, now)
        if job_decide.is_over(snapshot.status) or snapshot.deleting:
            return Decision(status=body.get("status") or {})
        decision = tell.failed(snapshot, now, Reason.REQUEST_WRONG, f"{field}: {first['msg']}")
        await self._performer.perform(COMPRESSION_JOBS, body, decision)
        return decision

    async def _release(self, key: Key, *, fresh: bool) -> Decision | None:
        try:
            body = await self._cluster.get(MODEL_RELEASES, key.namespace, key.name)
        except NotFoundError:
            return None
        if body["metadata"]["uid"] != key.uid:
            return None
        self._mirror.put(MODEL_RELEASES, body)
        now = self._clock()
        spec = ModelReleaseSpec.model_validate(body.get("spec") or {})
        snapshot = await release_observe.observe(self._cluster, body, now)

        def decide(refused: Refusal | None) -> Decision:
            return release_decide.decide(spec, replace(snapshot, refused=refused), self._job_image, now)

        return await self._perform(MODEL_RELEASES, body, decide)

    async def _perform(self, resource: Resource, body: Json, decide: Callable[[Refusal | None], Decision]) -> Decision:
        """Carry out what is decided; where the API server refuses it, what is decided upon that."""
        decision = decide(None)
        try:
            await self._performer.perform(resource, body, decision)
        except RefusedError as error:
            name = body["metadata"]["name"]
            logger.warning("%s %s: refused: %s", resource.kind, name, error)
            self._metrics.reconcile_errors.labels(resource.kind).inc()
            decision = decide(Refusal(str(error), invalid=error.status == UNPROCESSABLE))
            await self._performer.perform(resource, body, decision)
        return decision

    def _count(self, key: Key, decision: Decision) -> None:
        for stage, seconds in decision.measured:
            self._metrics.stage_seconds.labels(stage).observe(seconds)
        if decision.verdict:
            self._metrics.verdicts.labels(key.kind, decision.verdict).inc()


@lru_cache(maxsize=512)
def _job_spec(text: bytes) -> CompressionJobSpec:
    """Return the spec; parsed once for the several times that a job is looked at."""
    return CompressionJobSpec.model_validate_json(text)
