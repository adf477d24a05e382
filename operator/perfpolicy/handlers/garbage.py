"""When Python looks for objects that refer to one another in a circle.

An answer about thousands of series is a hundred thousand objects, all of them in use and none in a circle. To look through them every 700,
as Python does unless told otherwise, took as much CPU as all that is done with them.
"""

import gc
from typing import Final

_OBJECTS: Final = 10_000
"""New containers before the next look, fourteen times as many as usual: what lies in circles meanwhile is about 2 MiB."""


def collect_seldom() -> None:
    """Look after more new objects than usual. Changes this process only."""
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
