"""`python -m bench.counted FILE`: the operator, which on SIGUSR1 writes into FILE what its memory holds, as one JSON object.

`tasks`: asyncio tasks that have not ended, of every event loop; `types`: how many objects of each type there are, garbage not yet collected
included: a collection forced here would hide one that never comes by itself.
"""

import asyncio
import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path


def holdings() -> dict[str, object]:
    """What is in memory now."""
    found = gc.get_objects()
    # By type(): isinstance() asks the object, and a proxy of one that is gone answers with an error, into whatever the signal interrupted.
    tasks = sum(issubclass(type(each), asyncio.Task) and not each.done() for each in found)
    types = Counter(map(type, found))
    del found
    return {"tasks": tasks, "types": {f"{each.__module__}.{each.__qualname__}": count for each, count in types.most_common(500)}}


def write_on_signal(file: Path) -> None:
    """Begin to listen. The file is replaced at once as a whole."""

    def write(*_: object) -> None:
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(holdings()))
        partial.replace(file)

    signal.signal(signal.SIGUSR1, write)


if __name__ == "__main__":
    write_on_signal(Path(sys.argv[1]))
    from perfpolicy.cli import program

    program(["run"], prog_name="perfpolicy")
