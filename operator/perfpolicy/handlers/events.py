"""kopf's part: it watches the two kinds of ours and hands every event on. Nothing is written, nothing is decided here.

kopf runs in a thread with an event loop of its own, because when it stops it cancels every task of its loop; and it stops as a whole when
one of its watches is refused for good, for instance while the CRD is being deleted. It is then started again, after a pause.

It is also started anew when our own kinds come or go, as the runtime's discovery says: kopf's own scanning would need the right to read
every CustomResourceDefinition of the cluster, and does not exist where an operator has Roles only. For the same reason kopf looks for them
once, at its start, and where it looks a CRD made a moment ago may still be missing: then it is started again too, or it would stay deaf.
It asks other documents than our discovery does, which the API server writes independently: of 12 CRDs made on a busy one, ours showed 4 a
few milliseconds before one of kopf's did. Where several API servers answer, they differ by more.
"""

import asyncio
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import kopf
from kopf._cogs.structs.references import Insights  # the type of an argument of kopf.operator(), which kopf does not export

from perfpolicy.cluster.client import UNCOMPRESSED, Credentials
from perfpolicy.cluster.resource import Resource
from perfpolicy.cluster.watch import GRACE
from perfpolicy.runtime import Runtime
from perfpolicy.vocabulary import CLASS_PLURAL, GROUP, POLICY_PLURAL, VERSION

_log = logging.getLogger(__name__)
_PAUSE_MIN, _PAUSE_MAX = 1.0, 30.0
_STEADY = 60.0
"""Seconds kopf must have run for its next end to be the first of a series again."""
_PAGE = 100
"""Policies kopf asks for at once."""
_IDLE_SECONDS = 0.2
"""For which kopf keeps the worker of an object after its last event; its own default is 5."""
_LOOK_SECONDS = 0.2
"""Between two looks at which of our kinds are served."""


class EndlessBackoff:
    """Pauses in seconds before kopf's repeated requests: growing, jittered, never ending, so no outage of the API server ends kopf."""

    def __iter__(self) -> Iterator[float]:
        """A fresh, endless sequence."""
        pause = _PAUSE_MIN
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
            pause = min(_PAUSE_MAX, pause * 2)


class _Connection(kopf.ConnectionInfo):
    def as_http_headers(self) -> dict[str, str]:
        """Headers of every request."""
        return {**super().as_http_headers(), **UNCOMPRESSED}


def connection(found: Credentials) -> kopf.ConnectionInfo:
    """How kopf reaches the API server with these credentials."""
    return _Connection(
        server=found.server,
        insecure=not found.verify,
        ca_path=found.ca_file or None,
        certificate_path=found.certificate_file or None,
        private_key_path=found.key_file or None,
        scheme="Bearer" if found.token else None,
        token=found.token or None,
    )


class NoComparison(kopf.DiffBaseStorage):
    """kopf copies every object whole, to find out what changed in it since it was last handled: asked by no handler of ours, and half of
    what an event costs.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Nothing."""
        return None

    def store(self, **_: Any) -> None:
        """Nothing."""


def kopf_settings(watch_timeout: int) -> kopf.OperatorSettings:
    """kopf without what is not used: no peering, no events or comparisons of its own, no limit on retries."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = NoComparison()
    settings.networking.error_backoffs = EndlessBackoff()
    settings.networking.request_timeout = 60.0
    settings.process.ultimate_exiting_timeout = None
    settings.watching.server_timeout = watch_timeout
    settings.watching.inactivity_timeout = watch_timeout + GRACE
    settings.watching.connect_timeout = 10.0
    # A worker keeps the last object it saw for as long as it waits for another event: every policy of a list would be held at once. Both
    # together, of 1,000 policies: 10 MiB instead of 39.
    settings.watching.chunk_size = _PAGE
    settings.queueing.idle_timeout = _IDLE_SECONDS
    return settings


def registry(runtime: Runtime, loop: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
    """Handlers that pass events into `loop`, where `runtime` lives."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**_: Any) -> kopf.ConnectionInfo:
        found = asyncio.run_coroutine_threadsafe(runtime.credentials(), loop).result(timeout=30)
        return connection(found)

    def hand_on(event: Mapping[str, Any], seen: Callable[[Mapping[str, Any]], None], gone: Callable[[Mapping[str, Any]], None]) -> None:
        loop.call_soon_threadsafe(gone if event["type"] == "DELETED" else seen, event["object"])

    @kopf.on.event(GROUP, VERSION, POLICY_PLURAL, registry=handlers)
    async def policy(event: Mapping[str, Any], **_: Any) -> None:
        hand_on(event, runtime.policy_seen, runtime.policy_gone)

    async def performance_class(event: Mapping[str, Any], **_: Any) -> None:
        hand_on(event, runtime.class_seen, runtime.class_gone)

    if runtime.settings.class_file is None:
        kopf.on.event(GROUP, VERSION, CLASS_PLURAL, registry=handlers)(performance_class)

    return handlers


class KopfThread:
    """Keeps kopf running until stopped."""

    def __init__(self, runtime: Runtime, loop: asyncio.AbstractEventLoop) -> None:
        self._runtime, self._loop = runtime, loop
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    async def stop(self, seconds: float) -> None:
        """Stop watching; returns after `seconds` at the latest. The thread is a daemon: it cannot hold the process up."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, seconds)

    @property
    def alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        pauses = iter(EndlessBackoff())
        while not self._stop.is_set():
            serving, started = self._runtime.serving, time.monotonic()
            if not serving:
                self._stop.wait(_LOOK_SECONDS)
                continue
            try:
                asyncio.run(self._operate(serving))
            except Exception:  # noqa: BLE001 - whatever ended kopf, it is started again; the cause is logged in full
                _log.exception("kopf ended; it is started again")
            asked_to_end = self._runtime.serving != serving
            if asked_to_end or time.monotonic() - started > _STEADY:
                pauses = iter(EndlessBackoff())
            if not asked_to_end:
                self._stop.wait(next(pauses))

    async def _operate(self, serving: frozenset[Resource]) -> None:
        namespaces = self._runtime.settings.namespaces
        # Else kopf asks the password database who runs it, and the user of a container has no entry there.
        identity: Any = socket.gethostname()
        over, insights = asyncio.Event(), Insights()
        watcher = asyncio.create_task(self._until_over(serving, insights, over))
        try:
            await kopf.operator(
                registry=registry(self._runtime, self._loop),
                settings=kopf_settings(self._runtime.settings.watch_timeout),
                identity=identity,
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                insights=insights,
                stop_flag=over,
            )
        finally:
            watcher.cancel()

    async def _until_over(self, serving: frozenset[Resource], insights: Insights, over: asyncio.Event) -> None:
        """Set `over` when this thread is to stop, other kinds of ours are served than kopf was started for, or kopf did not find them."""
        # What is looked at is set by other threads.
        while not self._stop.is_set() and self._runtime.serving == serving and not self._is_deaf(serving, insights):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        over.set()

    def _is_deaf(self, serving: frozenset[Resource], insights: Insights) -> bool:
        missing = {kind.plural for kind in serving} - {resource.plural for resource in insights.watched_resources}
        if not insights.ready_resources.is_set() or not missing:
            return False
        _log.info("kopf does not see all kinds yet; it is started again", extra={"missing": sorted(missing)})
        return True
