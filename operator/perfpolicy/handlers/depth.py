"""Room for objects nested as deeply as the API server lets anybody nest them.

A policy may carry a free-form part, and every object's managedFields mirror its nesting: the API server accepts 10,000 levels, Python's
default limit ends at about 1,000. Whoever may write one policy could stop the operator for everybody. Changes this process only.
"""

import resource
import sys
import threading
from typing import Final

_FRAMES: Final = 60_000
"""Two to three frames a level for what recurses in Python (copies, comparisons, encoders), for 10,000 levels, twice."""
_STACK_BYTES: Final = 96 * 1024 * 1024
"""Address space, not memory. Below the 128 MiB the kernel always leaves below the main thread's stack."""


def allow_deep_objects() -> None:
    """Raise the recursion limit, and the stacks of the main thread and of threads started from now on with it. Call before any thread."""
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = _STACK_BYTES if hard == resource.RLIM_INFINITY else min(_STACK_BYTES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
    threading.stack_size(_STACK_BYTES)
    sys.setrecursionlimit(_FRAMES)
