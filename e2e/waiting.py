"""The one polling helper of the end-to-end tests: wait for what must become true, with a deadline, never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

from lab.errors import CommandError

T = TypeVar("T")
INTERVAL = 0.1


def eventually(check: Callable[[], T], seconds: float = 30.0) -> T:
    """Call `check` until it neither fails an assertion nor returns False; its answer. At the deadline its last failure is raised.

    A command that fails and a connection that breaks count as "not yet": what is waited for may be on its way up, and machines are busy.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = check()
            if answer is not False:
                return answer
            problem: Exception = AssertionError(f"{getattr(check, '__name__', check)} was still false after {seconds:g} s")
        except (AssertionError, CommandError, OSError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise problem
        time.sleep(INTERVAL)


def throughout(check: Callable[[], bool], seconds: float) -> None:
    """Call `check` for that long; it must be true every time. For what must not happen there is no other way than to watch."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert check(), f"{getattr(check, '__name__', check)} became false"
        time.sleep(INTERVAL)
