"""Counts what was asked of the API server, from its audit log: who did which verb to what.

Positions in the log are byte offsets, so that counting what happened since a moment does not read all that came before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Request:
    """One answered request. `resource` is plural, with its subresource as in "pods/status"; "" for what is no object."""

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    code: int

    @property
    def is_write(self) -> bool:
        """Whether the verb changes objects."""
        return self.verb in WRITES


def position(log: Path) -> int:
    """The log's end now, in bytes; 0 when there is no log yet. Give it to `requests` later."""
    return log.stat().st_size if log.exists() else 0


def requests(log: Path, after: int) -> Iterator[Request]:
    """The requests audited since `after`, a former `position`; a last line that is still being written is left out."""
    with log.open("rb") as lines:
        lines.seek(after)
        for line in lines:
            if line.endswith(b"\n"):
                yield _request(line)


def count(found: Iterable[Request]) -> dict[tuple[str, str], int]:
    """How often each (verb, resource) was asked, the most frequent first."""
    counts: dict[tuple[str, str], int] = {}
    for each in found:
        key = (each.verb, each.resource)
        counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _request(line: bytes) -> Request:
    event = json.loads(line)
    target = event.get("objectRef", {})
    resource = "/".join(filter(None, (target.get("resource"), target.get("subresource"))))
    user = event.get("impersonatedUser", event["user"]).get("username", "")
    return Request(
        user, event["verb"], resource, target.get("namespace", ""), target.get("name", ""), event.get("responseStatus", {}).get("code", 0)
    )
