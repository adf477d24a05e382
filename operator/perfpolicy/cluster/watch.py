"""One supervised watch per kind: list, then watch, for ever.

Each kind is restarted alone, because one kind that answers 403 or 404 must not stop the others. A kind whose CRD is gone is waited for, not
retried blindly: discovery says when it is back. Objects are handed on one by one so that a list of thousands is never held whole.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from perfpolicy.cluster.client import JSON, METADATA, METADATA_LIST, ApiClient
from perfpolicy.cluster.objects import PAGE
from perfpolicy.cluster.resource import Resource
from perfpolicy.errors import ApiRejected, ApiUnavailable

_log = logging.getLogger(__name__)
GRACE = 5.0
"""Seconds after the time at which the API server should have ended a watch: by then a silent one is a dead connection."""
_STUCK = 4.0
"""A watch says that it works though it has heard nothing for so many of its renewals: what renews it is broken."""
_BACKOFF_MIN, _BACKOFF_MAX, _STEADY = 0.5, 30.0, 10.0
"""Seconds: first and longest pause between two attempts; how long a watch must live to count as working (or half as long as asked)."""


class Sink(Protocol):
    """Who wants to know. Called in the event loop; must not block."""

    def put(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        """The object exists, as shown."""

    def drop(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        """The object left the watch: deleted, or no longer selected."""

    def retain(self, resource: Resource, namespace: str | None, names: set[tuple[str, str]]) -> None:
        """A complete list of the namespace (None: of all) held exactly these (namespace, name)."""


class KindWatch:
    """Watches one kind in all namespaces or in the given ones."""

    def __init__(
        self,
        api: ApiClient,
        resource: Resource,
        sink: Sink,
        *,
        selector: str = "",
        whole: bool = False,
        namespaces: tuple[str, ...] = (),
        timeout: int = 45,
        relist: float = 600.0,
    ) -> None:
        """`selector`: server-side label selector; `whole`: full objects, not metadata; `timeout`: seconds until a watch is renewed;

        `relist`: seconds after which it is renewed with a complete list, in case an event was missed.
        """
        self.resource = resource
        self._api, self._sink = api, sink
        self._selector = {"labelSelector": selector} if selector else {}
        self._accept_list, self._accept = (JSON, JSON) if whole else (METADATA_LIST, METADATA)
        self._namespaces: tuple[str | None, ...] = namespaces if namespaces and resource.namespaced else (None,)
        self._timeout, self._relist = timeout, relist
        self._listed: set[str | None] = set()
        self._fresh: set[str | None] = set()
        """Namespaces listed since the kind was last served, and not refused since."""
        self._heard: dict[str | None, float] = {}
        """Loop time of the last word of each namespace: a list, a watch that began, an event or a bookmark."""
        self._served = asyncio.Event()
        self._epoch = 0
        self.settled = asyncio.Event()
        """Set once the first list is complete, or the kind turned out not to be served."""
        self.problem = ""
        """What is wrong right now; empty when the watch works."""

    @property
    def complete(self) -> bool:
        """Everything there is has been handed on: served, and listed everywhere since; False while a look is refused."""
        return self._served.is_set() and len(self._fresh) == len(self._namespaces)

    @property
    def age(self) -> float | None:
        """Seconds since anything was heard, of the namespace where that is longest ago; None where nothing ever was or is to be."""
        if not self._served.is_set() or not self._heard:
            return None
        return asyncio.get_running_loop().time() - min(self._heard.values())

    @property
    def stuck(self) -> bool:
        """Connected for all it knows, and silent for far longer than a watch that works can be."""
        age = self.age
        return age is not None and not self.problem and age > _STUCK * self._timeout

    def set_served(self, served: bool) -> None:
        """Discovery's word on whether the kind exists; stops or resumes the watch."""
        if served:
            self._served.set()
            return
        self._served.clear()
        self._epoch += 1
        self._fresh.clear()
        self._heard.clear()
        self.problem = ""
        self.settled.set()
        for namespace in self._namespaces:
            self._sink.retain(self.resource, namespace, set())

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for namespace in self._namespaces:
                group.create_task(self._supervise(namespace))

    async def _supervise(self, namespace: str | None) -> None:
        version, failures, epoch, listed = "", 0, self._epoch, 0.0
        clock = asyncio.get_running_loop().time
        while True:
            await self._served.wait()
            started = clock()
            if epoch != self._epoch or started - listed > self._relist:
                version, epoch = "", self._epoch
            try:
                if not version:
                    version = await self._list(namespace)
                    listed = clock()
                    self._has_listed(namespace, current=epoch == self._epoch)
                version = await self._watch(namespace, version)
            except ApiRejected as error:
                version = ""
                self._fresh.discard(namespace)
                self._report(error)
            except ApiUnavailable as error:
                self._report(error)
            # A watch that lived is renewed at once; one that ends as soon as it starts is not asked for in a loop.
            failures = 0 if clock() - started > min(_STEADY, self._timeout / 2) else failures + 1
            if failures:
                await asyncio.sleep(min(_BACKOFF_MAX, _BACKOFF_MIN * 2 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0))  # noqa: S311

    def _has_listed(self, namespace: str | None, *, current: bool) -> None:
        """`current`: the kind did not go while it was listed."""
        self._listed.add(namespace)
        if current:
            self._fresh.add(namespace)
        self.problem = ""
        if len(self._listed) == len(self._namespaces):
            self.settled.set()

    def _hear(self, namespace: str | None) -> None:
        self._heard[namespace] = asyncio.get_running_loop().time()

    def _works(self, namespace: str | None) -> None:
        self._hear(namespace)
        self.problem = ""

    def _report(self, error: Exception) -> None:
        if not self.problem and self._served.is_set():
            _log.warning("a watch is interrupted", extra={"kind": self.resource.kind, "problem": str(error)})
        self.problem = str(error)
        if isinstance(error, ApiRejected):
            # Not allowed to look: the rest of the operator must not wait for it.
            self.settled.set()

    async def _list(self, namespace: str | None) -> str:
        names: set[tuple[str, str]] = set()
        params = {"limit": str(PAGE), **self._selector}
        while True:
            answer = await self._api.request("GET", self.resource.path(namespace), params=params, accept=self._accept_list)
            self._hear(namespace)
            for obj in answer.body.get("items") or ():
                names.add((obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))
                self._tell(self._sink.put, obj)
            metadata = answer.body.get("metadata", {})
            if not metadata.get("continue"):
                break
            params = {"limit": str(PAGE), "continue": metadata["continue"], **self._selector}
        self._sink.retain(self.resource, namespace, names)
        return str(metadata.get("resourceVersion", ""))

    async def _watch(self, namespace: str | None, version: str) -> str:
        """Follow one watch to its end; returns the version to go on from, or an empty text when only a new list helps."""
        seconds = int(self._timeout * random.uniform(0.8, 1.0))  # noqa: S311 - so that watches are not all renewed at once
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            **self._selector,
            "resourceVersion": version,
        }
        path, works = self.resource.path(namespace), partial(self._works, namespace)
        async for event in self._api.stream(path, params=params, silence=seconds + GRACE, accept=self._accept, on_open=works):
            self._hear(namespace)
            kind, obj = event.get("type"), event.get("object", {})
            if kind == "ERROR":
                if obj.get("code") == 410:
                    return ""
                # Whatever it is, it may come of this very version (an event that cannot be decoded, say): begin anew, as client-go does.
                message = f"watch {self.resource.plural}: {obj.get('message', 'the stream reports an error')}"
                raise ApiRejected(message, obj.get("code", 500), obj.get("reason", ""))
            version = obj.get("metadata", {}).get("resourceVersion", version)
            if kind in ("ADDED", "MODIFIED"):
                self._tell(self._sink.put, obj)
            elif kind == "DELETED":
                self._tell(self._sink.drop, obj)
        return version

    def _tell(self, hear: Callable[[Resource, Mapping[str, Any]], None], obj: Mapping[str, Any]) -> None:
        try:
            hear(self.resource, obj)
        except Exception:  # noqa: BLE001 - a defect met by one object must not stop the watch for all others; it is logged in full
            metadata = obj.get("metadata", {})
            name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
            _log.exception("an object cannot be taken in", extra={"kind": self.resource.kind, "object": name})
