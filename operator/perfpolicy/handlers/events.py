"""kopf's part: it watches the two kinds of ours and hands every event on. Nothing is written, nothing is decided here.

kopf runs in a thread with an event loop of its own, because when it stops it cancels every task of its loop; and it stops as a whole when
one of its watches is refused for good, for instance while the CRD is being deleted. It is then started again, after a pause.
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

from perfpolicy.runtime import Runtime
from perfpolicy.vocabulary import CLASS_PLURAL, GROUP, POLICY_PLURAL, VERSION

_log = logging.getLogger(__name__)
_PAUSE_MIN, _PAUSE_MAX = 1.0, 30.0
_STEADY = 60.0
"""Seconds kopf must have run for its next end to be the first of a series again."""


class EndlessBackoff:
    """Pauses in seconds before kopf's repeated requests: growing, jittered, never ending, so no outage of the API server ends kopf."""

    def __iter__(self) -> Iterator[float]:
        """A fresh, endless sequence."""
        pause = _PAUSE_MIN
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
            pause = min(_PAUSE_MAX, pause * 2)


def kopf_settings() -> kopf.OperatorSettings:
    """kopf without what is not used: no peering, no events of its own, no limit on retries."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.networking.error_backoffs = EndlessBackoff()
    settings.networking.request_timeout = 60.0
    settings.process.ultimate_exiting_timeout = None
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 10.0
    settings.watching.chunk_size = 500
    return settings


def registry(runtime: Runtime, loop: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
    """Handlers that pass events into `loop`, where `runtime` lives."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**_: Any) -> kopf.ConnectionInfo:
        found = asyncio.run_coroutine_threadsafe(runtime.credentials(), loop).result(timeout=30)
        return kopf.ConnectionInfo(
            server=found.server,
            insecure=not found.verify,
            ca_path=found.ca_file or None,
            certificate_path=found.certificate_file or None,
            private_key_path=found.key_file or None,
            scheme="Bearer" if found.token else None,
            token=found.token or None,
        )

    def hand_on(event: Mapping[str, Any], seen: Callable[[Mapping[str, Any]], None], gone: Callable[[Mapping[str, Any]], None]) -> None:
        loop.call_soon_threadsafe(gone if event["type"] == "DELETED" else seen, event["object"])

    @kopf.on.event(GROUP, VERSION, POLICY_PLURAL, registry=handlers)
    async def policy(event: Mapping[str, Any], **_: Any) -> None:
        hand_on(event, runtime.policy_seen, runtime.policy_gone)

    @kopf.on.event(GROUP, VERSION, CLASS_PLURAL, registry=handlers)
    async def performance_class(event: Mapping[str, Any], **_: Any) -> None:
        hand_on(event, runtime.class_seen, runtime.class_gone)

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
            started = time.monotonic()
            try:
                asyncio.run(self._operate())
            except Exception:  # noqa: BLE001 - whatever ended kopf, it is started again; the cause is logged in full
                _log.exception("kopf ended; it is started again")
            if time.monotonic() - started > _STEADY:
                pauses = iter(EndlessBackoff())
            self._stop.wait(next(pauses))

    async def _operate(self) -> None:
        namespaces = self._runtime.settings.namespaces
        settings = kopf_settings()
        settings.scanning.disabled = bool(namespaces)
        # Else kopf asks the password database who runs it, and the user of a container has no entry there.
        identity: Any = socket.gethostname()
        await kopf.operator(
            registry=registry(self._runtime, self._loop),
            settings=settings,
            identity=identity,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=self._stop,
        )
