"""What the user sees while something takes longer than two seconds.

On a terminal: one live line. Elsewhere (CI, a log file): a line after two seconds, every 15 s from then on, and at the
end, so that a log stays readable. Everything goes to stderr; stdout belongs to `env` and `status -o json`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

console = Console(stderr=True, highlight=False, soft_wrap=True)
_INTERVAL_SECONDS = 15.0
_SILENT_SECONDS = 2.0


class Activity:
    """One thing in progress; `update` may be called as often as the caller likes."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.started = time.monotonic()
        self._printed = self.started
        self._status: Status | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the activity began."""
        return time.monotonic() - self.started

    def update(self, detail: str) -> None:
        """Show how far the activity is; `detail` is a short phrase such as "1200/2400 packages"."""
        text = f"{self.title}: {detail} ({self.seconds:.0f} s)"
        if self._status is not None:
            self._status.update(text)
        elif time.monotonic() - self._printed >= _INTERVAL_SECONDS:
            self._printed = time.monotonic()
            console.print(text, markup=False)


_open: list[Activity] = []


@contextmanager
def activity(title: str) -> Iterator[Activity]:
    """Show `title` while the block runs, then how long it took. Nested activities share the live line of the outer one."""
    current = Activity(title)
    outer = _open[-1] if _open else None
    if outer is not None:
        current._status = outer._status
        current.update("started")
    elif console.is_terminal:
        current._status = console.status(title)
        current._status.start()
    announcement = threading.Timer(_SILENT_SECONDS, lambda: console.print(f"… {title}", markup=False))
    announcement.daemon = True
    if current._status is None:
        announcement.start()
    _open.append(current)
    failed = True
    try:
        yield current
        failed = False
    finally:
        announcement.cancel()
        _open.pop()
        if outer is None:
            if current._status is not None:
                current._status.stop()
            console.print(f"{'✗' if failed else '✓'} {title} ({current.seconds:.1f} s)", markup=False)
