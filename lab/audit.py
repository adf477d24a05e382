"""Counts what was asked of the API server, from its audit log: who did which verb to what. The only reader of that log.

Positions in the log are byte offsets, so that counting what happened since a moment does not read all that came before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Request:
    """One answered request. `resource` is plural, with its subresource as in "pods/status"; "" for what is no object. `agent` is the
    caller's User-Agent, `source` the address it asked from, "" where the log names none. `at`: when it arrived, as the log writes it.
    `unauthorized`: its user has no right to it. The code does not tell: a namespace or CRD on its way out answers 403 as well.
    """

    user: str
    agent: str
    verb: str
    resource: str
    namespace: str
    name: str
    code: int
    source: str = ""
    at: str = ""
    unauthorized: bool = False

    @property
    def is_write(self) -> bool:
        """Whether the verb changes objects."""
        return self.verb in WRITES


def position(log: Path) -> int:
    """The log's end now, in bytes; 0 when there is no log yet. Give it to `requests` later."""
    return log.stat().st_size if log.exists() else 0


def requests(log: Path, after: int | datetime, holding: str = "") -> Iterator[Request]:
    """The requests audited since `after`, a former `position` or a moment; a last line that is still being written is left out.

    `holding`: only lines that hold this text, which spares parsing the others.
    """
    earliest = after.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(after, datetime) else ""
    with log.open("rb") as lines:
        lines.seek(0 if isinstance(after, datetime) else after)
        for line in lines:
            if not line.endswith(b"\n") or holding.encode() not in line:
                continue
            event = json.loads(line)
            if event.get("requestReceivedTimestamp", "") >= earliest:
                yield _request(event)


def count(found: Iterable[Request]) -> dict[tuple[str, str], int]:
    """How often each (verb, resource) was asked, the most frequent first."""
    counts: dict[tuple[str, str], int] = {}
    for each in found:
        key = (each.verb, each.resource)
        counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _request(event: Mapping[str, Any]) -> Request:
    target = event.get("objectRef", {})
    resource = "/".join(filter(None, (target.get("resource"), target.get("subresource"))))
    user = event.get("impersonatedUser", event["user"]).get("username", "")
    code = event.get("responseStatus", {}).get("code", 0)
    source = next(iter(event.get("sourceIPs", ())), "")
    agent, namespace, name = event.get("userAgent", ""), target.get("namespace", ""), target.get("name", "")
    at, decision = event.get("requestReceivedTimestamp", ""), event.get("annotations", {}).get("authorization.k8s.io/decision")
    return Request(user, agent, event["verb"], resource, namespace, name, code, source, at, unauthorized=decision == "forbid")
