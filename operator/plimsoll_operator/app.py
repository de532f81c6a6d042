"""The running operator: the lease, the watches, the workers, and the end of it all."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import kopf

from plimsoll_operator.audit import Audit, Watched
from plimsoll_operator.clock import Clock, system_clock
from plimsoll_operator.cluster.client import Cluster
from plimsoll_operator.cluster.errors import ClusterError
from plimsoll_operator.cluster.resources import (
    BATCH_JOBS,
    COMPRESSION_JOBS,
    MODEL_RELEASES,
    OWN_KINDS,
    PODS,
    Resource,
)
from plimsoll_operator.cluster.watch import Watch
from plimsoll_operator.handlers import kopf_settings, register
from plimsoll_operator.health import Health
from plimsoll_operator.intake import SELECTOR, Intake
from plimsoll_operator.leader import Lease
from plimsoll_operator.metrics import Metrics
from plimsoll_operator.mirror import Mirror
from plimsoll_operator.queue import WorkQueue
from plimsoll_operator.reconcile import Reconciler
from plimsoll_operator.settings import Settings
from plimsoll_operator.web import serve

logger = logging.getLogger(__name__)


class Operator:
    """One operator. `run` returns the exit code: 0 when it was asked to stop, 1 when it has to be started anew."""

    def __init__(self, cluster: Cluster, settings: Settings, clock: Clock = system_clock) -> None:
        self._cluster = cluster
        self._settings = settings
        self._mirror = Mirror()
        self._queue = WorkQueue(urgent_kinds=frozenset({MODEL_RELEASES.kind}))
        self._metrics = Metrics(self._mirror)
        self._metrics.queue_depth.set_function(lambda: len(self._queue))
        self._health = Health()
        self._stopped = asyncio.Event()
        self._intake = Intake(self._mirror, self._queue)
        self._lease = Lease(cluster, settings.lease_namespace, settings.lease_name, settings.identity, clock)
        self._reconciler = Reconciler(
            cluster, self._mirror, self._metrics, clock, job_image=settings.job_image, identity=settings.identity
        )

    async def run(self) -> int:
        """Lead and work until SIGTERM, SIGINT, the loss of the lease, or a watch that is found dead."""
        self._take_signals()
        runner = await serve(self._metrics, self._health, {self._settings.metrics_port, self._settings.health_port})
        stop = asyncio.create_task(self._stopped.wait(), name="stop")
        try:
            if not await self._lead(stop):
                return 0
            return await self._work(stop)
        finally:
            stop.cancel()
            if self._settings.leader_election:
                await self._lease.release()
            await runner.cleanup()
            await self._cluster.close()

    async def _lead(self, stop: asyncio.Task[bool]) -> bool:
        """Wait for the lease; say whether it was had before the stop."""
        if self._settings.leader_election:
            acquire = asyncio.create_task(self._lease.acquire(), name="acquire")
            # One that waits for its turn is ready too: a rollout needs the new pod ready before the old one goes.
            self._health.reached = self._lease.answered.is_set
            await asyncio.wait({acquire, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not acquire.done():
                await _cancel([acquire])
                return False
            acquire.result()
        self._metrics.leader.set(1)
        return True

    async def _work(self, stop: asyncio.Task[bool]) -> int:
        namespaces: Sequence[str | None] = self._settings.namespaces or (None,)
        children = [watch for namespace in namespaces for watch in self._children(namespace)]
        tasks = [asyncio.create_task(watch.run(), name="watch") for watch in children]
        if self._settings.leader_election:
            tasks.append(asyncio.create_task(self._lease.hold(), name="lease"))
        try:
            # Children come first: a job is not looked at before they can be seen.
            listed = asyncio.create_task(_all_listed(children), name="listed")
            await asyncio.wait({listed, stop, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            await _cancel([listed])
            self._health.reached = lambda: True
            tasks += [asyncio.create_task(self._jobs(namespace).run(), name="watch") for namespace in namespaces]
            tasks += [
                asyncio.create_task(self._worker(number), name=f"worker {number}")
                for number in range(self._settings.workers)
            ]
            tasks.append(asyncio.create_task(self._audit(namespaces).run(), name="audit"))
            tasks.append(asyncio.create_task(self._kopf(), name="kopf"))
            done, _ = await asyncio.wait({stop, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            if stop in done:
                return 0
            for task in done:
                self._health.lost = f"the {task.get_name()} ended"
                logger.error("%s; the operator ends, to be started anew", self._health.lost, exc_info=task.exception())
            return 1
        finally:
            self._metrics.leader.set(0)
            await _cancel(tasks)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)

    async def _kopf(self) -> None:
        namespaces = self._settings.namespaces
        ours = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=register(self._intake.event),
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
        )
        # kopf took them over, and would wait five seconds for tasks that go on until they are cancelled.
        self._take_signals()
        await kopf.run_tasks(tasks, ignored=ours)

    def _jobs(self, namespace: str | None) -> Watch:
        return Watch(
            self._cluster,
            COMPRESSION_JOBS,
            namespace,
            "",
            changed=partial(self._intake.own, COMPRESSION_JOBS),
            removed=partial(self._intake.own_gone, COMPRESSION_JOBS),
            known=self._mirror.own[COMPRESSION_JOBS.kind].keys,
        )

    def _children(self, namespace: str | None) -> list[Watch]:
        return [
            Watch(
                self._cluster,
                PODS,
                namespace,
                SELECTOR,
                changed=self._intake.pod,
                removed=self._intake.pod_gone,
                known=self._mirror.pods.keys,
            ),
            Watch(
                self._cluster,
                BATCH_JOBS,
                namespace,
                SELECTOR,
                changed=self._intake.batch_job,
                removed=self._intake.batch_job_gone,
                known=self._mirror.batch_jobs.keys,
            ),
        ]

    def _audit(self, namespaces: Sequence[str | None]) -> Audit:
        def watched(resource: Resource, selector: str = "") -> Watched:
            heard = partial(self._intake.heard.__getitem__, resource.kind)
            return Watched(resource, selector, partial(self._mirror.version_of, resource), heard)

        kinds = [watched(resource) for resource in OWN_KINDS]
        kinds.append(watched(BATCH_JOBS, SELECTOR))
        return Audit(self._cluster, namespaces, kinds, interval_seconds=self._settings.audit_seconds)

    async def _worker(self, number: int) -> None:
        while True:
            key = await self._queue.get()
            self._health.begin(number, f"{key.kind} {key.namespace}/{key.name}")
            begun = time.perf_counter()
            try:
                again = await self._reconciler.reconcile(key)
            except Exception as error:
                self._metrics.reconcile_errors.labels(key.kind).inc()
                wait = getattr(error, "retry_after_seconds", None) or 0.0
                seconds = self._queue.failed(key, wait)
                expected = isinstance(error, ClusterError)
                logger.warning(
                    "%s %s/%s: again in %.1f s: %s",
                    key.kind,
                    key.namespace,
                    key.name,
                    seconds,
                    error,
                    exc_info=None if expected else error,
                )
            else:
                self._queue.done(key)
                if again is not None:
                    self._queue.add_after(key, again)
            finally:
                self._metrics.reconcile_seconds.labels(key.kind).observe(time.perf_counter() - begun)
                self._health.end(number)


async def _all_listed(watches: Sequence[Watch]) -> None:
    for watch in watches:
        await watch.listed.wait()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, Exception):
            await task
