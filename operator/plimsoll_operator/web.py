"""/metrics, /healthz and /readyz."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from plimsoll_operator.health import Health
from plimsoll_operator.metrics import Metrics


async def serve(metrics: Metrics, health: Health, ports: set[int]) -> web.AppRunner:
    """Serve on the ports until the returned runner is cleaned up."""
    app = web.Application()

    async def show_metrics(_: web.Request) -> web.StreamResponse:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def show_health(_: web.Request) -> web.StreamResponse:
        return _answer(health.problem())

    async def show_readiness(_: web.Request) -> web.StreamResponse:
        return _answer(health.unready() or health.problem())

    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", show_health)
    app.router.add_get("/readyz", show_readiness)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    for port in sorted(ports):
        await web.TCPSite(runner, None, port).start()
    return runner


def _answer(problem: str | None) -> web.Response:
    return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)
