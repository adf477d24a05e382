"""What can go wrong between the operator and the API server, one class each; every one knows which write, read or event it is about."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from e2e.fault_proxy import Asked, Cut, Fault, Write, failure

REASONS = {
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


@dataclass
class Kill(Fault):
    """SIGKILL at the k-th effective write. `answered`: it is done and the operator has not heard of it; else it is not sent on."""

    k: int
    answered: bool
    pid: Callable[[], int]

    async def before(self, asked: Asked) -> web.Response | None:
        """Kill instead of sending the write on."""
        if not self.answered and asked.is_write and self.line.effective == self.k - 1:
            self._kill()
        return None

    async def after(self, write: Write) -> None:
        """Kill instead of passing the answer on."""
        if self.answered and write.changed and self.line.effective == self.k:
            self._kill()

    def _kill(self) -> None:
        os.kill(self.pid(), signal.SIGKILL)
        self.k = -1
        raise Cut


@dataclass
class Gone(Fault):
    """Somebody deletes the policy right after the k-th effective write, while the operator is at it; `pid`: and the operator is killed."""

    k: int
    path: str
    pid: Callable[[], int] | None = None

    async def after(self, write: Write) -> None:
        """Delete it."""
        if write.changed and self.line.effective == self.k:
            self.k = -1
            await self.line.proxy.delete(self.path)
            if self.pid is not None:
                os.kill(self.pid(), signal.SIGKILL)
                raise Cut


@dataclass
class Refuse(Fault):
    """The k-th effective write is answered `times` times with an error before the API server gets to see it."""

    k: int
    status: int
    times: int = 2

    async def before(self, asked: Asked) -> web.Response | None:
        """The error."""
        if asked.is_write and self.times and self.line.effective == self.k - 1:
            self.times -= 1
            return failure(self.status, REASONS[self.status], "a fault on purpose")
        return None


@dataclass
class RefuseReads(Fault):
    """The next `times` reads of every path are answered with an error: lists, watches, single objects and discovery."""

    status: int
    times: int = 2
    seen: dict[str, int] = field(default_factory=dict)

    async def before(self, asked: Asked) -> web.Response | None:
        """The error."""
        key = f"{asked.target.verb} {asked.path}"
        self.seen[key] = self.seen.get(key, 0) + 1
        if asked.method == "GET" and self.seen[key] <= self.times:
            return failure(self.status, REASONS[self.status], "a fault on purpose")
        return None


@dataclass
class CutWrite(Fault):
    """The connection of the k-th effective write is cut. `answered`: after the API server has done it."""

    k: int
    answered: bool
    idle_writes: int = 1

    async def before(self, asked: Asked) -> web.Response | None:
        """Cut at once."""
        if not self.answered and asked.is_write and self.line.effective == self.k - 1:
            self.k = -1
            raise Cut
        return None

    async def after(self, write: Write) -> None:
        """Cut with the answer."""
        if self.answered and write.changed and self.line.effective == self.k:
            self.k = -1
            raise Cut


@dataclass
class Slow(Fault):
    """Every answer to a write takes that long."""

    seconds: float

    async def after(self, write: Write) -> None:
        """Wait."""
        await asyncio.sleep(self.seconds)


@dataclass
class Drop(Fault):
    """The n-th event of all watches is lost."""

    n: int

    async def passes(self, asked: Asked, event: Mapping[str, Any]) -> bool:
        """All but that one."""
        return self.line.events != self.n


@dataclass
class Lose(Fault):
    """The next event of one object is lost."""

    plural: str
    name: str

    async def passes(self, asked: Asked, event: Mapping[str, Any]) -> bool:
        """All but that one."""
        lost = asked.target.kind == self.plural and event["object"]["metadata"]["name"] == self.name
        if lost:
            self.name = ""
        return not lost


@dataclass
class Late(Fault):
    """Every event of a watch, and with it all that follow it, comes that much later: what the operator knows is old."""

    seconds: float

    async def passes(self, asked: Asked, event: Mapping[str, Any]) -> bool:
        """Wait."""
        await asyncio.sleep(self.seconds)
        return True


@dataclass
class BlackHole(Fault):
    """The watches of these kinds that are open hear nothing any more, not even their end."""

    plurals: frozenset[str]

    def silences(self, asked: Asked) -> bool:
        """Whether it is one of them."""
        return asked.target.kind in self.plurals


@dataclass
class Away(Fault):
    """Nothing is answered until `back` is set. `hangs`: neither are connections cut."""

    hangs: bool
    back: asyncio.Event = field(default_factory=asyncio.Event)

    async def before(self, asked: Asked) -> web.Response | None:
        """No answer."""
        await self._miss()
        return None

    async def passes(self, asked: Asked, event: Mapping[str, Any]) -> bool:
        """Watches hear nothing either."""
        await self._miss()
        return True

    async def _miss(self) -> None:
        if self.hangs:
            await self.back.wait()
        elif not self.back.is_set():
            raise Cut


@dataclass
class OldLists(Fault):
    """Every list of objects is the one of a former version, as a lagging API server gives it: the first one of each path."""

    version: str
    seen: set[str] = field(default_factory=set)

    def query(self, asked: Asked) -> Mapping[str, str]:
        """Ask for that version."""
        if asked.target.verb != "list" or asked.path in self.seen or "continue" in asked.query:
            return asked.query
        self.seen.add(asked.path)
        return {**asked.query, "resourceVersion": self.version, "resourceVersionMatch": "Exact"}
