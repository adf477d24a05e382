"""`perfpolicy run`: start everything, stop on SIGTERM."""

import asyncio
import logging
import signal

from perfpolicy.handlers import logs, probes
from perfpolicy.handlers.depth import allow_deep_objects
from perfpolicy.handlers.events import KopfThread
from perfpolicy.handlers.garbage import collect_seldom
from perfpolicy.runtime import Runtime
from perfpolicy.settings import Settings

_log = logging.getLogger(__name__)
_STOP_SECONDS = 2.0


def run(settings: Settings) -> int:
    """Run the operator until SIGTERM or SIGINT; the exit code. Raises SettingsError where no API server can be addressed."""
    allow_deep_objects()
    collect_seldom()
    logs.configure(settings)
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    runtime = await Runtime.connect(settings)
    kopf = KopfThread(runtime, loop)
    server = await probes.serve(probes.application(runtime, kopf), settings.health_port) if settings.health_port else None
    kopf.start()
    work, stop = asyncio.create_task(runtime.run()), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        _log.info("stopping")
        return 0
    finally:
        for task in (work, stop):
            task.cancel()
        await asyncio.gather(work, stop, return_exceptions=True)
        await kopf.stop(_STOP_SECONDS)
        if server is not None:
            await server.cleanup()
