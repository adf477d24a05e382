"""/healthz, /readyz and /metrics.

`/healthz` (liveness) fails only for what a new process cures: an event loop that hardly turns (one that stands still gives no answer, which
is a failure too), kopf's thread gone, a watch that is silent without knowing it. Not for an API server or a Prometheus that is away: a
restart brings neither back and loses the warm caches. `/readyz` says whether everything there is has been seen once; a standby is ready.
`/readyz?verbose` tells what is wrong right now, none of which makes a replica unready: the others would have the same problems.
`/metrics?name[]=perfpolicy_queue_depth` shows the named metrics only, as other exporters do: the page of thousands of policies is long.

Not kopf's own probe server: that one goes away whenever kopf is restarted.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from perfpolicy.evaluate.exposition import FAMILIES
from perfpolicy.handlers.events import KopfThread
from perfpolicy.handlers.gauges import Gauges
from perfpolicy.handlers.lag import LoopLag
from perfpolicy.runtime import Runtime

_LAG_LIMIT: Final = 5.0
"""Seconds: above it, nothing the operator does is in time, and the probe itself is about to time out."""


def application(runtime: Runtime, kopf: KopfThread) -> web.Application:
    """The three endpoints."""
    lag = LoopLag()
    gauges = CollectorRegistry(auto_describe=True)
    gauges.register(Gauges(runtime, lag))

    async def healthz(_: web.Request) -> web.Response:
        problems = runtime.stuck()
        if not kopf.alive:
            problems["kopf"] = "its thread has ended"
        if lag.last > _LAG_LIMIT:
            problems["event loop"] = f"{lag.last:.1f} s late"
        return web.json_response({"live": not problems, "problems": problems}, status=500 if problems else 200)

    async def readyz(request: web.Request) -> web.Response:
        found: dict[str, object] = {"ready": runtime.ready}
        if "verbose" in request.query:
            found |= {"leader": runtime.leadership(), "problems": runtime.problems(), "absentKinds": runtime.absent()}
        return web.json_response(found, status=200 if runtime.ready else 503)

    async def metrics(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE_LATEST})
        names = request.query.getall("name[]", [])
        registries = [registry.restricted_registry(names) if names else registry for registry in (REGISTRY, gauges)]
        # A scrape that was given up is told by Prometheus.
        with suppress(ConnectionResetError):
            await response.prepare(request)
            await response.write(b"".join(map(generate_latest, registries)))
            # One family after the other: what is held for a scrape is one of them. No more turns of the loop than the reader's pace takes:
            # where it is busy each may take a tenth of a second, and the scrape must end in time.
            evaluations = runtime.evaluations()
            for family in FAMILIES:
                if not names or family.name in names:
                    await response.write(family.text(evaluations).encode())
        return response

    async def measure_lag(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(lag.run(), name="loop lag")
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    app = web.Application()
    app.cleanup_ctx.append(measure_lag)
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


async def serve(app: web.Application, port: int) -> web.AppRunner:
    """Listen on all addresses; the caller cleans the runner up."""
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
