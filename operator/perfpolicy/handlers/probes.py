"""/healthz, /readyz and /metrics.

Not kopf's own probe server: that one goes away whenever kopf is restarted.
"""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from perfpolicy.handlers.events import KopfThread
from perfpolicy.runtime import Runtime


def application(runtime: Runtime, kopf: KopfThread) -> web.Application:
    """The three endpoints."""

    async def healthz(_: web.Request) -> web.Response:
        # Answering at all shows that the event loop turns.
        return web.json_response({"kopf": kopf.alive}, status=200 if kopf.alive else 500)

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response({"ready": runtime.ready, "problems": runtime.problems()}, status=200 if runtime.ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


async def serve(app: web.Application, port: int) -> web.AppRunner:
    """Listen on all addresses; the caller cleans the runner up."""
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
