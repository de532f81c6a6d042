"""What kopf watches: the kinds that change seldom. No logic here: every event goes to the intake.

What changes several times a job is watched by ourselves (see app): kopf takes a millisecond for each event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf

from plimsoll_api import GROUP, VERSION
from plimsoll_operator.cluster.resources import MODEL_RELEASES, MODEL_REVISIONS, Json, Resource

Intake = Callable[[Resource, str | None, Json], None]


def register(intake: Intake) -> kopf.OperatorRegistry:
    """Return a registry in which the events of releases and revisions go to the intake."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

    def follow(resource: Resource) -> None:
        @kopf.on.event(GROUP, VERSION, resource.plural, id=f"intake-{resource.plural}", registry=registry)
        async def event(event: Any, **_: Any) -> None:
            intake(resource, event["type"], event["object"])

    for resource in (MODEL_RELEASES, MODEL_REVISIONS):
        follow(resource)
    return registry


def kopf_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: timeouts that a frozen watch cannot outlive, and nothing written but by us."""
    settings = kopf.OperatorSettings()
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDifferences()
    settings.process.ultimate_exiting_timeout = 20
    return settings


class _NoDifferences(kopf.DiffBaseStorage):
    """Spares kopf the deep copy of every object that it makes to find differences, which only other handlers need."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None
