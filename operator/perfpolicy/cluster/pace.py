"""How fast requests may follow each other."""

import asyncio
import time
from collections.abc import Callable


class Pace:
    """Token bucket of one second's worth (and at least one), by the time at which the next one is due (GCRA). First come, first served."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._gap, self._clock = 1 / per_second, clock
        self._credit = max(0.0, 1.0 - self._gap)
        self._due = -float("inf")

    def take(self) -> float:
        """Take a turn; seconds until it comes."""
        now = self._clock()
        turn = max(self._due, now - self._credit)
        self._due = turn + self._gap
        return max(0.0, turn - now)

    async def turn(self) -> None:
        """Wait for a turn."""
        wait = self.take()
        if wait:
            await asyncio.sleep(wait)
