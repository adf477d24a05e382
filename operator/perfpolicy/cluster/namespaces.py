"""The namespaces an operator is limited to, looked at one by one.

Why not a watch: listing and watching Namespaces needs a ClusterRole, but reading the one a Role stands in needs that Role only.
"""

import asyncio
import logging
from typing import Final

from perfpolicy.cluster.client import METADATA, ApiClient
from perfpolicy.cluster.resource import Resource
from perfpolicy.cluster.watch import Sink
from perfpolicy.errors import ApiRejected, ApiUnavailable

NAMESPACES: Final = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
_log = logging.getLogger(__name__)
_SOON = 1.0
"""Seconds until a namespace that is missing, or that nobody answered for, is looked at again: policies come right after their namespace."""


class NamespaceLook:
    """Tells the sink the metadata of the given namespaces, again and again."""

    def __init__(self, api: ApiClient, sink: Sink, names: tuple[str, ...], interval: float) -> None:
        """`interval`: seconds between two looks, and so the delay with which new labels are noticed."""
        self._api, self._sink, self._names, self._interval = api, sink, names, interval
        self.settled = asyncio.Event()
        """Set once every namespace has been answered for, if only by a refusal."""
        self.problem = ""
        """What is wrong right now; empty when all can be read."""
        self._missing: set[str] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await self.look()
            due = clock() + (self._interval if self.settled.is_set() else _SOON)
            while (left := due - clock()) > 0:
                await asyncio.sleep(min(left, _SOON) if self._missing else left)
                await self._look_for_missing()

    async def _look_for_missing(self) -> None:
        for name in tuple(self._missing):
            try:
                await self._read(name)
            except (ApiRejected, ApiUnavailable):
                return  # told by the next look at all of them

    async def look(self) -> None:
        """Read each namespace once. One that cannot be read keeps the labels last seen."""
        problems, answered = [], True
        for name in self._names:
            try:
                await self._read(name)
            except ApiRejected as error:
                # The rest of the operator must not wait for what is not allowed.
                problems.append(str(error))
            except ApiUnavailable as error:
                problems.append(str(error))
                answered = False
        if problems and not self.problem:
            _log.warning("a namespace cannot be read", extra={"problem": problems[0]})
        self.problem = "; ".join(problems)
        if answered:
            self.settled.set()

    async def _read(self, name: str) -> None:
        try:
            self._sink.put(NAMESPACES, (await self._api.request("GET", NAMESPACES.path(name=name), accept=METADATA)).body)
            self._missing.discard(name)
        except ApiRejected as error:
            if error.status != 404:
                raise
            self._missing.add(name)
            self._sink.drop(NAMESPACES, {"metadata": {"name": name}})
