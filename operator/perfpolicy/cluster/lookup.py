"""Find out what stands under a name, many names at once.

Why: before the first apply of a name it must be read, and a burst of new policies asks for hundreds of names of the same kinds in the same
namespace. Questions that arrive together are answered by one list; a single question, or one into a crowded namespace, by single reads.
"""

import asyncio
from typing import Any

from perfpolicy.cluster.objects import Objects
from perfpolicy.render.manifest import GroupKind

_GATHER_SECONDS = 0.005
"""How long a question waits for company: a fraction of what reading costs."""
_CROWD = 25
"""A list is worth it while it holds fewer than this many objects per question."""

_Place = tuple[GroupKind, str]
_Answer = dict[str, Any] | None


class Lookup:
    """Reads metadata by kind, namespace and name."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._asked: dict[_Place, dict[str, asyncio.Future[_Answer]]] = {}
        self._crowd: dict[_Place, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, kind: GroupKind, namespace: str, name: str) -> _Answer:
        """Metadata of the object, or None where there is none. The read is sent after the question, never before."""
        place = (kind, namespace)
        waiting = self._asked.get(place)
        if waiting is None:
            waiting = self._asked[place] = {}
            task = asyncio.create_task(self._answer(place, waiting))
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
        if len(names) > 2 and len(names) * _CROWD >= self._crowd.get(place, 0):
            listed = await self._objects.list_metadata(*place)
            self._crowd[place] = len(listed)
            return {metadata["name"]: metadata for metadata in listed}
        read = await asyncio.gather(*(self._objects.read_metadata(*place, name) for name in names))
        return dict(zip(names, read, strict=True))
