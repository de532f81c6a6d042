"""Custom objects on a real API server, with the strict field validation that kubectl asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes import client

from plimsoll_api import GROUP, VERSION
from plimsoll_api.crd import DEFINITIONS
from plimsoll_api.manifest import as_kubectl_sends

PLURALS = {definition.kind: definition.plural for definition in DEFINITIONS}


class RefusedError(Exception):
    """The API server's refusal, in its words."""


def apply(connection: client.ApiClient, namespace: str, manifest: dict[str, Any], *, status: bool = False) -> Any:
    """Apply the object, or its status, on the server's side and return it as stored."""
    api = client.CustomObjectsApi(connection)
    call = api.patch_namespaced_custom_object_status if status else api.patch_namespaced_custom_object
    place = (GROUP, VERSION, namespace, PLURALS[manifest["kind"]], manifest["metadata"]["name"])
    with _refusals():
        call(
            *place,
            as_kubectl_sends(manifest),
            field_manager="tests",
            field_validation="Strict",
            force=True,
            _content_type="application/apply-patch+yaml",
        )
    return api.get_namespaced_custom_object(*place)


def try_to_create(connection: client.ApiClient, manifest: dict[str, Any]) -> Any:
    """Return the object as the server would store it; nothing is stored."""
    with _refusals():
        return client.CustomObjectsApi(connection).create_namespaced_custom_object(
            GROUP,
            VERSION,
            "default",
            PLURALS[manifest["kind"]],
            as_kubectl_sends(manifest),
            field_validation="Strict",
            dry_run="All",
        )


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except client.ApiException as error:
        if error.status not in (400, 422):
            raise
        raise RefusedError(json.loads(error.body)["message"]) from error
