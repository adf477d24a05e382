"""Find out what stands under a name, for many policies at once.

Why: before the first apply of a name it must be read, and a burst of new policies asks for hundreds of names of the same kinds in the same
namespace. Where several policies ask or wait, the namespace is listed, and that a name was not there answers those who ask within a moment.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perfpolicy.cluster.objects import Objects
from perfpolicy.render.manifest import GroupKind

_GATHER_SECONDS = 0.005
"""How long a question waits for company: a fraction of what reading costs."""
_FEW = 3
"""Fewer questions than that are read one by one."""
_CROWD = 25
"""A list is worth it while it holds fewer than this many objects per question."""
_FRESH_SECONDS = 5.0
"""How long a list says what was not there: within it a worker walks a hundred policies, and few people create anything."""
_EXPECTED = 100
"""Of the policies that wait, so many are walked while a list is fresh."""

_Place = tuple[GroupKind, str]
_Answer = dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Listed:
    """What a list showed that was sent after `at` (by the clock)."""

    at: float
    names: frozenset[str]


class Lookup:
    """Reads metadata by kind, namespace and name."""

    def __init__(self, objects: Objects, waiting: Callable[[str], int], clock: Callable[[], float] = time.monotonic) -> None:
        """`waiting`: how many policies of a namespace wait to be walked, and will ask too; `clock`: seconds, as `since` in `find` is."""
        self._objects, self._waiting, self._clock = objects, waiting, clock
        self._asked: dict[_Place, dict[str, asyncio.Future[_Answer]]] = {}
        self._listing: dict[_Place, tuple[float, asyncio.Event]] = {}
        """The newest list under way: after when it was sent, and set once it has ended."""
        self._listed: dict[_Place, _Listed] = {}
        self._crowd: dict[_Place, int] = {}
        """Objects last listed, where they are so many that a few questions are not worth a list."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, kind: GroupKind, namespace: str, name: str, since: float) -> _Answer:
        """Metadata of the object, or None where there is none. The read is sent after `since`, which is when whoever asks first had to
        know; that an object is there is always read anew.
        """
        place = (kind, namespace)
        sent, ended = self._listing.get(place, (since, None))
        if ended is not None and sent >= since:
            await ended.wait()
        listed = self._listed.get(place)
        if listed is not None and listed.at >= since and self._clock() - listed.at < _FRESH_SECONDS and name not in listed.names:
            return None
        waiting = self._asked.get(place)
        if waiting is None:
            waiting = self._asked[place] = {}
            task = asyncio.create_task(self._answer(place, waiting), name=f"look up {kind.kind}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        future = waiting.get(name)
        if future is None:
            future = waiting[name] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(future)

    async def _answer(self, place: _Place, waiting: dict[str, asyncio.Future[_Answer]]) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        del self._asked[place]
        try:
            found = await self._read(place, tuple(waiting))
        except Exception as error:  # noqa: BLE001 - handed to everybody who asked, who raise it
            for future in waiting.values():
                future.set_exception(error)
                future.exception()  # marks it as seen: the asker may have been cancelled
            return
        for name, future in waiting.items():
            future.set_result(found.get(name))

    async def _read(self, place: _Place, names: tuple[str, ...]) -> dict[str, Any]:
        questions = len(names) + min(self._waiting(place[1]), _EXPECTED)
        if questions >= _FEW and questions * _CROWD >= self._crowd.get(place, 0):
            return await self._list(place)
        read = await asyncio.gather(*(self._objects.read_metadata(*place, name) for name in names))
        return dict(zip(names, read, strict=True))

    async def _list(self, place: _Place) -> dict[str, Any]:
        at, ended = self._clock(), asyncio.Event()
        self._listing[place] = at, ended
        try:
            found = {metadata["name"]: metadata for metadata in await self._objects.list_metadata(*place)}
            self._listed[place] = listed = _Listed(at, frozenset(found))
        finally:
            ended.set()
            if self._listing.get(place) == (at, ended):
                del self._listing[place]
        asyncio.get_running_loop().call_later(_FRESH_SECONDS, self._forget, place, listed)
        self._crowd.pop(place, None)
        if len(found) > _FEW * _CROWD:
            self._crowd[place] = len(found)
        return found

    def _forget(self, place: _Place, listed: _Listed) -> None:
        if self._listed.get(place) is listed:
            del self._listed[place]
