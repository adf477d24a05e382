"""How late the event loop is: what a callback waits beyond its time. A loop that does not turn at all answers no probe either."""

import asyncio
from collections import deque
from typing import Final

_EVERY: Final = 1.0
_REMEMBERED: Final = 60


class LoopLag:
    """Measures once a second while `run` runs."""

    def __init__(self) -> None:
        self._measured: deque[float] = deque([0.0], maxlen=_REMEMBERED)

    @property
    def last(self) -> float:
        """Seconds, of the last measurement."""
        return self._measured[-1]

    @property
    def longest(self) -> float:
        """Seconds, of the last minute: a scrape must not miss what happened between two of them."""
        return max(self._measured)

    async def run(self) -> None:
        """Measure until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + _EVERY
            await asyncio.sleep(_EVERY)
            self._measured.append(clock() - due)
