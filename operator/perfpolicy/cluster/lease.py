"""Leader election by a Lease: of several replicas one writes, the others stand by, warm.

The protocol is client-go's. A leader renews the Lease every few seconds; each update carries the resourceVersion it is based on, so of two
that try one fails. A Lease is free when its holder let go of it, or when it has not changed for its duration *by the observer's own clock*:
times written by other machines are shown, never compared. The clock counts while a process is stopped or its machine suspended.

Leadership is a fact about the clock, not about which task runs: `holds` is true until the renew deadline after the last confirmed renewal
(counted from before it was asked for), and every write is held against it where it is sent (cluster/client.py). So a leader that was
stopped, or whose event loop was blocked, writes nothing after it wakes, before any code of ours has noticed.

A process that loses the Lease stands by again instead of exiting, as client-go's users do: nothing outlives the loss (the work is one task
that is cancelled and awaited, its memory is dropped, every write is held against the clock), and a restart would throw the warm caches away
just when they are wanted: Leases are mostly lost by an API server that did not answer, by all replicas at once.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perfpolicy.cluster.client import ApiClient
from perfpolicy.cluster.resource import Resource, micro_time
from perfpolicy.errors import ApiRejected, ApiUnavailable, SettingsError
from perfpolicy.settings import PREFIX, Settings

LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases")
_log = logging.getLogger(__name__)
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_RELEASE_SECONDS = 2.0
"""A Lease that cannot be released in this time is left to expire: the pod has to end."""


class LeaseView:
    """What one process knows of the Lease, by its own clock. Pure: clock (seconds) and wall time are injected."""

    def __init__(self, identity: str, duration: int, renew_deadline: float, clock: Callable[[], float]) -> None:
        """`duration`, `renew_deadline`: seconds, of this process's own terms."""
        self.identity = identity
        self._duration, self._renew_deadline, self._clock = duration, renew_deadline, clock
        self._metadata: Mapping[str, Any] = {}
        self._spec: Mapping[str, Any] = {}
        self._changed_at = 0.0
        self._renewed_at: float | None = None

    @property
    def holder(self) -> str:
        """Who held the Lease when it was last seen; empty where it was free."""
        return self._spec.get("holderIdentity") or ""

    @property
    def left(self) -> float:
        """Seconds this process may still write; not above 0 while it may not."""
        return 0.0 if self._renewed_at is None else self._renewed_at + self._renew_deadline - self._clock()

    @property
    def free_in(self) -> float:
        """Seconds until this process may try to take the Lease; 0 for now."""
        if self.holder in ("", self.identity):
            return 0.0
        return max(0.0, self._changed_at + float(self._spec.get("leaseDurationSeconds") or self._duration) - self._clock())

    def see(self, lease: Mapping[str, Any] | None) -> None:
        """The Lease as just read; None where there is none.

        One that vanished counts as unchanged: its holder has not ended, it is about to create it again.
        """
        if lease is None:
            self._metadata = {}
            return
        self._metadata = {name: value for name, value in lease["metadata"].items() if name != "managedFields"}
        spec = lease.get("spec") or {}
        if spec != self._spec:
            self._spec, self._changed_at = spec, self._clock()

    def won(self, lease: Mapping[str, Any], asked_at: float) -> None:
        """The API server took our claim, which was sent after `asked_at` (by the clock)."""
        self.see(lease)
        self._renewed_at = asked_at

    def lose(self) -> None:
        """This process leads no more, whatever the clock says."""
        self._renewed_at = None

    def claim(self, name: str, now: datetime) -> dict[str, Any]:
        """The Lease to write to take it or to hold it longer."""
        transitions = int(self._spec.get("leaseTransitions") or 0)
        taken = {} if self.holder == self.identity else {"acquireTime": micro_time(now), "leaseTransitions": transitions + bool(self._spec)}
        return self._lease(name, holderIdentity=self.identity, leaseDurationSeconds=self._duration, renewTime=micro_time(now), **taken)

    def release(self, name: str, now: datetime) -> dict[str, Any]:
        """The Lease to write to let go of it."""
        return self._lease(name, holderIdentity="", leaseDurationSeconds=1, renewTime=micro_time(now))

    def _lease(self, name: str, **spec: Any) -> dict[str, Any]:
        metadata = self._metadata or {"name": name}
        return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": {**self._spec, **spec}}


class LeaderElection:
    """Runs what only the leader does, while this process is the leader."""

    def __init__(self, api: ApiClient, view: LeaseView, namespace: str, name: str, retry: float, clock: Callable[[], float]) -> None:
        """`api`: a connection of its own, which holds no write back and in which no burst of others' requests is waited for.

        `retry`: seconds between two renewals. A standby looks at the Lease two to four times as often: one that is let go of is taken soon.
        """
        self._api, self._view, self._namespace, self._name, self._retry, self._clock = api, view, namespace, name, retry, clock
        self.problem = ""
        """Why the Lease cannot be read or written right now; empty when it can."""

    @classmethod
    async def connect(cls, settings: Settings, identity: str) -> "LeaderElection":
        """The election the settings name. Raises SettingsError where its namespace or the API server is unknown."""
        namespace = settings.lease_namespace or own_namespace()
        # Half of the deadline, as client-go does: one lost answer must not cost the Lease.
        brief = settings.model_copy(
            update={"request_timeout": min(settings.request_timeout, settings.lease_renew_deadline / 2), "api_connections": 2}
        )
        view = LeaseView(identity, settings.lease_duration, settings.lease_renew_deadline, elapsed)
        return cls(await ApiClient.connect(brief, identity), view, namespace, settings.lease, settings.lease_retry, elapsed)

    @property
    def holds(self) -> bool:
        """This process may write right now."""
        return self._view.left > 0

    @property
    def identity(self) -> str:
        """This process's name in the Lease."""
        return self._view.identity

    @property
    def holder(self) -> str:
        """Who held the Lease when this process last saw it; empty where nobody did."""
        return self._view.holder

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Until cancelled: wait for the Lease, run `lead` while holding it, cancel it when the Lease is lost. Released at the end."""
        try:
            while True:
                await self._acquire()
                _log.info("leading", extra={"identity": self.identity})
                async with asyncio.TaskGroup() as group:
                    work = group.create_task(lead(), name="lead")
                    await self._keep()
                    work.cancel()
                _log.warning("leadership is lost; standing by", extra={"identity": self.identity, "holder": self.holder})
        finally:
            await self._release()

    async def close(self) -> None:
        """Close the connection."""
        await self._api.close()

    async def _acquire(self) -> None:
        while not await self._attempt():
            # Spread, so that standbys do not look at the same moments; but awake when the Lease expires.
            pause = self._retry * random.uniform(0.25, 0.5)  # noqa: S311 - spreads load, guards nothing
            free = self._view.free_in
            await asyncio.sleep(free if 0 < free < pause else pause)

    async def _keep(self) -> None:
        """Renew until the Lease is lost."""
        while (left := self._view.left) > 0:
            try:
                async with asyncio.timeout(left):
                    await asyncio.sleep(self._retry)
                    # After a sleep past the deadline another may have led in between: what this leadership knows is outdated.
                    if self.holds:
                        await self._attempt()
            except TimeoutError:
                break
        self._view.lose()

    async def _attempt(self) -> bool:
        """Take or renew the Lease once; whether this process holds it now."""
        try:
            await self._contend()
            self.problem = ""
        except (ApiUnavailable, ApiRejected) as error:
            if not self.problem:
                _log.warning("the lease is out of reach", extra={"problem": str(error)})
            self.problem = str(error)
        return self.holds

    async def _contend(self) -> None:
        """Raises ApiUnavailable or ApiRejected; who leads stays as it is then."""
        if not self.holds:
            self._view.see(await self._read())
            if self._view.free_in:
                return
        for _ in range(2):
            asked_at = self._clock()
            try:
                self._view.won(await self._write(self._view.claim(self._name, datetime.now(UTC))), asked_at)
                return
            except ApiRejected as error:
                if error.status not in (404, 409):
                    raise
            # Somebody was faster, or an answer of ours got lost, or the Lease was edited or deleted by hand.
            self._view.see(await self._read())
            if self._view.holder != self.identity:
                self._view.lose()
                return

    async def _release(self) -> None:
        """Let go of the Lease, so that another replica takes it at its next look. Nothing may be written any more when this is called."""
        held = self.holds
        self._view.lose()
        if not held:
            return
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                self._view.see(await self._write(self._view.release(self._name, datetime.now(UTC))))
            _log.info("the lease is released", extra={"identity": self.identity})
        except (TimeoutError, ApiUnavailable, ApiRejected) as error:
            _log.warning("the lease is not released and will expire", extra={"problem": str(error) or "no answer"})

    async def _read(self) -> dict[str, Any] | None:
        try:
            return (await self._api.request("GET", LEASES.path(self._namespace, self._name))).body
        except ApiRejected as error:
            if error.status == 404:
                return None
            raise

    async def _write(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        known = "resourceVersion" in lease["metadata"]
        path = LEASES.path(self._namespace, self._name if known else None)
        return (await self._api.request("PUT" if known else "POST", path, body=lease)).body


def elapsed() -> float:
    """Seconds of a clock that also counts while the process is stopped and while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def own_namespace() -> str:
    """The namespace of this pod. Raises SettingsError outside of one."""
    try:
        return _OWN_NAMESPACE.read_text(encoding="ascii").strip()
    except OSError as error:
        raise SettingsError(f"{PREFIX}LEASE_NAMESPACE: must be set outside of a pod: {error}") from error
