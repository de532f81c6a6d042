"""A way to the API server on which things go wrong: between the operator and the server, never inside either."""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from tests.cluster import Cluster

WRITES = ("POST", "PUT", "PATCH", "DELETE")
CarryOn = Callable[[], Awaitable[web.StreamResponse]]
#: Asked for each request, with what carries it on; answers in its place, or raises Dropped.
Fault = Callable[[web.Request, CarryOn], Awaitable[web.StreamResponse]]


class Dropped(Exception):  # noqa: N818 - it is what the fault does, not what went wrong here
    """The connection breaks without an answer."""


def is_write(request: web.Request) -> bool:
    """Say whether the request changes the cluster; the lease does not count."""
    return request.method in WRITES and "/leases" not in request.path


@dataclass
class FaultProxy:
    """An HTTP server that passes everything on to the API server, unless `fault` has it otherwise."""

    cluster: Cluster
    folder: Path
    fault: Fault | None = None

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of a client that goes this way."""
        return self.folder / "through-proxy.kubeconfig"

    def __enter__(self) -> FaultProxy:
        given = yaml.safe_load(self.cluster.kubeconfig.read_text())
        home = given["clusters"][0]["cluster"]
        self._server = home["server"]
        self._token = given["users"][0]["user"]["token"]
        self._ssl = ssl.create_default_context(cafile=home.get("certificate-authority"), cadata=_decoded(home))
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait(10)
        given["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.port}"}
        given["users"][0]["user"] = {}
        self.kubeconfig.write_text(yaml.safe_dump(given))
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._begin())
        started.set()
        self._loop.run_forever()

    async def _begin(self) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._ssl, limit=0))
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = self._runner.addresses[0][1]

    async def _end(self) -> None:
        await self._runner.cleanup()
        await self._session.close()
        # A fault may still keep requests waiting, and what clients broke off is yet to hear of it.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()

        async def carry_on() -> web.StreamResponse:
            return await self._carry_on(request, body)

        try:
            return await (self.fault(request, carry_on) if self.fault else carry_on())
        except (Dropped, aiohttp.ClientError):
            if request.transport:
                request.transport.abort()
            return web.Response(status=500)

    async def _carry_on(self, request: web.Request, body: bytes) -> web.StreamResponse:
        headers = {name: text for name, text in request.headers.items() if name in ("Accept", "Content-Type")}
        headers["Authorization"] = f"Bearer {self._token}"
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            request.method, self._server + request.path_qs, data=body or None, headers=headers, timeout=timeout
        ) as reply:
            passed = {"Content-Type": reply.headers.get("Content-Type", "application/json")}
            if "watch" not in request.query:
                return web.Response(status=reply.status, headers=passed, body=await reply.read())
            stream = web.StreamResponse(status=reply.status, headers=passed)
            await stream.prepare(request)
            async for chunk in reply.content.iter_any():
                await stream.write(chunk)
            return stream


def _decoded(home: dict[str, Any]) -> str | None:

    data = home.get("certificate-authority-data")
    return base64.b64decode(data).decode() if data else None
