"""Which kinds the API server serves, looked at every few seconds.

One aggregated request, conditional on its ETag, so an unchanged cluster answers 304. Why polled instead of watching CRDs: it also covers
kinds served by other API servers, and needs no right on CRDs.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from perfpolicy.cluster.client import ApiClient
from perfpolicy.cluster.resource import Resource
from perfpolicy.errors import ApiRejected, ApiUnavailable

_log = logging.getLogger(__name__)
_ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Discovery:
    """Keeps the set of served kinds of interest up to date. The core group is always served.

    A kind counts as gone only when two looks in a row miss it: an API server that has just started shows its CRDs a moment late.
    """

    def __init__(
        self, api: ApiClient, resources: Iterable[Resource], on_change: Callable[[frozenset[Resource]], None], interval: float
    ) -> None:
        """`on_change` is called with the served kinds at first and whenever they differ; `interval`: seconds between two looks."""
        self._api, self._on_change, self._interval = api, on_change, interval
        self._resources = tuple(resources)
        self._tag = ""
        self._served: frozenset[Resource] | None = None
        self._seen: frozenset[Resource] = frozenset()

    async def run(self) -> None:
        """Look until cancelled. An API server that does not answer changes nothing: what was served is assumed to be still."""
        while True:
            try:
                await self.look()
            except (ApiUnavailable, ApiRejected) as error:
                _log.warning("discovery failed", extra={"problem": str(error)})
            await asyncio.sleep(self._interval)

    async def look(self) -> frozenset[Resource]:
        """Ask once; returns what is served."""
        headers = {"If-None-Match": self._tag} if self._tag else {}
        answer = await self._api.request("GET", "/apis", accept=_ACCEPT, headers=headers)
        before = self._seen
        if answer.status != 304:
            self._tag = answer.headers.get("ETag", "")
            found = served_kinds(answer.body)
            self._seen = frozenset(resource for resource in self._resources if not resource.group or _key(resource) in found)
        known = self._served
        served = self._seen if known is None else self._seen | (known & before)
        if served != known:
            self._served = served
            self._on_change(served)
        return served


def _key(resource: Resource) -> tuple[str, str, str]:
    return resource.group, resource.version, resource.kind


def served_kinds(body: Mapping[str, Any]) -> frozenset[tuple[str, str, str]]:
    """(group, version, kind) of everything in an APIGroupDiscoveryList. Pure."""
    return frozenset(
        (group["metadata"]["name"], version["version"], resource["responseKind"]["kind"])
        for group in body.get("items") or ()
        for version in group.get("versions") or ()
        for resource in version.get("resources") or ()
        if "responseKind" in resource
    )
