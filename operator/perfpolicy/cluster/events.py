"""Kubernetes Events about policies, on transitions only.

Why best effort: an Event that cannot be written must never hold up or fail a reconcile, so they go through a short queue of their own. A
transition that repeats within the hour is counted up in its series instead of becoming a new object.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, NamedTuple

from perfpolicy.cluster.client import APPLY, METADATA, ApiClient
from perfpolicy.cluster.resource import Resource, micro_time
from perfpolicy.errors import PerfPolicyError
from perfpolicy.policy.model import PolicyKey
from perfpolicy.vocabulary import API_VERSION, FIELD_MANAGER, GROUP, POLICY_KIND

EVENTS = Resource("events.k8s.io", "v1", "Event", "events")
_log = logging.getLogger(__name__)
_QUEUED, _REMEMBERED = 1000, 5000
_NOTE_LIMIT = 1000
"""Characters the API server accepts in a note (1,024) less some air."""


class Notice(NamedTuple):
    """One Event to write. `warning` chooses its type; `action` says what the operator was doing."""

    key: PolicyKey
    uid: str
    reason: str
    note: str
    warning: bool
    action: str = "Reconcile"


class EventWriter:
    """Writes notices one after the other; what does not fit into the queue is dropped, and told once for a whole burst."""

    def __init__(self, api: ApiClient, instance: str) -> None:
        """`instance`: name of this process, shown as the reporting instance."""
        self._api, self._instance = api, instance
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(_QUEUED)
        self._dropped = 0
        self._counts: OrderedDict[str, tuple[datetime, int]] = OrderedDict()

    def emit(self, notice: Notice) -> None:
        """Queue a notice; returns at once."""
        try:
            self._queue.put_nowait(notice)
        except asyncio.QueueFull:
            self._dropped += 1

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            notice = await self._queue.get()
            try:
                await self._write(notice, datetime.now(UTC))
            except PerfPolicyError as error:
                _log.warning("an Event is lost", extra={"policy": str(notice.key), "problem": str(error)})
            if self._dropped and self._queue.empty():
                _log.warning("Events were dropped: more waited than are kept", extra={"dropped": self._dropped, "kept": _QUEUED})
                self._dropped = 0

    async def _write(self, notice: Notice, now: datetime) -> None:
        identity = identity_of(notice, now)
        first, count = self._counts.pop(identity, (now, 0))
        self._counts[identity] = (first, count + 1)
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
        # The time of the first sighting is part of the name: it cannot be changed, and another process must not try to.
        name = f"{notice.key.name}.{_hash(identity, micro_time(first))}"
        body = event_object(notice, name, self._instance, first, now, count + 1)
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        await self._api.request(
            "PATCH", EVENTS.path(notice.key.namespace, name), params=params, body=body, content_type=APPLY, accept=METADATA
        )


def identity_of(notice: Notice, now: datetime) -> str:
    """Equal for the same notice within an hour, whose repeats are counted instead of written anew. Pure."""
    return _hash(notice.uid, notice.reason, notice.note, str(notice.warning), now.strftime("%Y%m%d%H"))


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def event_object(notice: Notice, name: str, instance: str, first: datetime, now: datetime, count: int) -> dict[str, Any]:
    """The Event of a notice that has been seen `count` times since `first`. Pure."""
    event: dict[str, Any] = {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": name, "namespace": notice.key.namespace},
        "eventTime": micro_time(first),
        "reportingController": f"{GROUP}/operator",
        "reportingInstance": instance,
        "action": notice.action,
        "reason": notice.reason,
        "note": notice.note if len(notice.note) <= _NOTE_LIMIT else notice.note[: _NOTE_LIMIT - 1] + "…",
        "type": "Warning" if notice.warning else "Normal",
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": POLICY_KIND,
            "namespace": notice.key.namespace,
            "name": notice.key.name,
            "uid": notice.uid,
        },
    }
    if count > 1:
        event["series"] = {"count": count, "lastObservedTime": micro_time(now)}
    return event
