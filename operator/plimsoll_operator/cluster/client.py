"""A thin client of the API server: the official client's configuration and connections, raw JSON in and out.

pydantic reads and writes JSON two to three times as fast as the standard library, and watches are mostly that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
from kubernetes.aio import client as official
from kubernetes.aio import config as official_config
from pydantic_core import from_json, to_json

from plimsoll_operator.cluster.errors import ClusterError, GoneError, UnavailableError, error_of
from plimsoll_operator.cluster.resources import Json, Resource

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 10.0
ATTEMPTS = 4
PAGE_SIZE = 500
MERGE_PATCH = "application/merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class Cluster:
    """The API server. Requests that may be repeated are, four times; then UnavailableError is raised.

    A write whose answer was lost is repeated too: all our writes say the same when said twice, since objects have
    deterministic names and changes carry the resourceVersion that they are based on.
    """

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration
        self._rest = official.ApiClient(configuration=configuration).rest_client
        self._session: aiohttp.ClientSession | None = None
        self._timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS)

    @classmethod
    async def connect(cls) -> Self:
        """Return the cluster that this pod runs in, else the one of KUBECONFIG's current context."""
        configuration = official.Configuration()
        if os.environ.get("KUBERNETES_SERVICE_HOST") and TOKEN.exists():  # noqa: ASYNC240 - once, before anything runs
            official_config.load_incluster_config(client_configuration=configuration)
        else:
            await official_config.load_kube_config(client_configuration=configuration)
        return cls(configuration)

    async def close(self) -> None:
        """Close all connections."""
        await self._rest.close()
        if self._session:
            await self._session.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        """Return the object as it is now."""
        return await self._json("GET", resource.path(namespace, name))

    async def pages(
        self, resource: Resource, namespace: str | None, *, query: Mapping[str, str] = {}, accept: str | None = None
    ) -> AsyncIterator[Json]:
        """Yield the list objects of a consistent list, a page at a time."""
        page_query = {"limit": str(PAGE_SIZE), **query}
        while True:
            page = await self._json("GET", resource.path(namespace), query=page_query, accept=accept)
            # An empty list of metadata alone says null.
            page["items"] = page.get("items") or []
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            page_query["continue"] = token

    async def list(self, resource: Resource, namespace: str, **query: str) -> list[Json]:
        """Return all objects that the selectors match, as they are now."""
        return [item async for page in self.pages(resource, namespace, query=query) for item in page["items"]]

    async def create(self, resource: Resource, namespace: str, body: Json) -> Json:
        """Create the object and return it, or raise AlreadyExistsError."""
        return await self._json("POST", resource.path(namespace), body=body)

    async def patch(
        self, resource: Resource, namespace: str, name: str, body: Json, *, subresource: str | None = None
    ) -> Json:
        """Merge the body into the object and return it. A resourceVersion in the body guards it: else ConflictError."""
        path = resource.path(namespace, name, subresource)
        return await self._json("PATCH", path, body=body, content_type=MERGE_PATCH)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Delete the very object of this uid; what it owns is collected later."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        await self._json("DELETE", resource.path(namespace, name), body=body)

    async def log(self, namespace: str, pod: str, container: str, tail_lines: int) -> str:
        """Return the last physical lines of the container's log."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        query = {"container": container, "tailLines": str(tail_lines)}
        return (await self._bytes("GET", path, query=query)).decode(errors="replace")

    async def watch(
        self, resource: Resource, namespace: str | None, *, query: Mapping[str, str], silence_seconds: float
    ) -> AsyncIterator[Json]:
        """Yield watch events until the server ends the watch; a silence this long raises UnavailableError.

        Bookmarks are asked for, so that a connection over which nothing comes at all is known to be dead.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=silence_seconds)
        watch_query = {"watch": "1", "allowWatchBookmarks": "true", **query}
        session, headers = await self._connection()
        try:
            async with session.get(
                self._url(resource.path(namespace)), params=watch_query, headers=headers, timeout=timeout
            ) as response:
                if response.status >= 400:
                    raise error_of(response.status, _status_object(await response.read()), None)
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield _watch_event(line)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(f"the watch on {resource.plural} broke: {error or type(error).__name__}") from error

    async def _json(self, method: str, path: str, **options: Any) -> Json:
        answer: Json = from_json(await self._bytes(method, path, **options))
        return answer

    async def _bytes(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
        accept: str | None = None,
    ) -> bytes:
        """Return the body of the answer; what may be tried again is, a few times."""
        headers = {"Accept": accept} if accept else {}
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = to_json(body)
        for attempt in range(ATTEMPTS - 1):
            try:
                return await self._once(method, path, query, data, headers)
            except UnavailableError as error:
                pause = 0.1 * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - so that clients do not march in step
                await asyncio.sleep(error.retry_after_seconds or pause)
        return await self._once(method, path, query, data, headers)

    async def _once(
        self, method: str, path: str, query: Mapping[str, str] | None, data: bytes | None, headers: dict[str, str]
    ) -> bytes:
        session, authorization = await self._connection()
        try:
            async with session.request(
                method,
                self._url(path),
                params=query,
                data=data,
                headers=headers | authorization,
                timeout=self._timeout,
            ) as response:
                content = await response.read()
                if response.status < 400:
                    return content
                raise error_of(response.status, _status_object(content), response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(f"{method} {path}: {error or type(error).__name__}") from error

    async def _connection(self) -> tuple[aiohttp.ClientSession, dict[str, str]]:
        """Return the session and the headers of a request; a token is read anew when it is due."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=64, ssl=self._rest.ssl_context)
            self._session = aiohttp.ClientSession(connector=connector)
        token = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return self._session, {"Authorization": token} if token else {}

    def _url(self, path: str) -> str:
        return f"{self._configuration.host}{path}"


def _status_object(content: bytes) -> Json:
    try:
        body = from_json(content)
    except ValueError:
        return {"message": content[:200].decode(errors="replace")} if content else {}
    return body if isinstance(body, dict) else {}


def _watch_event(line: bytes) -> Json:
    event: Json = from_json(line)
    if event.get("type") == "ERROR":
        status = event.get("object", {})
        code = int(status.get("code") or 500)
        error: ClusterError = error_of(code, status, None)
        raise error if isinstance(error, GoneError) else UnavailableError(str(error), status=code)
    return event
