"""The lab's cluster as the tests see it: kubectl, and what the API server's audit log says was done to it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from lab.errors import CommandError
from lab.lab import Lab

OPERATOR_AGENT = "perfpolicy/"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class Write(NamedTuple):
    """One write of the operator, as the API server logged it."""

    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int


@dataclass(frozen=True)
class Cluster:
    """One lab."""

    lab: Lab

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """Run kubectl; its output."""
        return self.lab.kubectl(*arguments, input=input)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """`kubectl apply` the objects, as a user does."""
        self.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        """One object with its managedFields, or None where there is none."""
        text = self.kubectl("get", kind, name, "-n", namespace, "--ignore-not-found", "--show-managed-fields", "-o", "json")
        return json.loads(text) if text.strip() else None

    def names(self, kind: str, namespace: str, selector: str = "") -> set[str]:
        """Names of the objects of a kind."""
        options = ["-l", selector] if selector else []
        return set(self.kubectl("get", kind, "-n", namespace, *options, "-o", "jsonpath={.items[*].metadata.name}").split())

    def delete(self, kind: str, name: str, namespace: str) -> None:
        """Delete an object and do not wait for what follows."""
        self.kubectl("delete", kind, name, "-n", namespace, "--wait=false")

    def condition(self, name: str, namespace: str, kind: str) -> tuple[str, str]:
        """(status, reason) of a policy's condition; empty texts where it has none."""
        policy = self.get("pp", name, namespace)
        for condition in (policy or {}).get("status", {}).get("conditions", ()):
            if condition["type"] == kind:
                return condition["status"], condition["reason"]
        return "", ""

    def writes(self, since: datetime, namespace: str | None = None) -> Counter[Write]:
        """Writes of the operator since a moment (Events left out), counted; of one namespace, or of all."""
        return Counter(write for write in self._writes(since) if namespace in (None, write.namespace) and write.resource != "events")

    def _writes(self, since: datetime) -> Iterator[Write]:
        earliest = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        with self.lab.audit_log.open(encoding="utf-8") as log:
            for line in log:
                if OPERATOR_AGENT not in line:
                    continue
                entry = json.loads(line)
                agent, verb, code = entry.get("userAgent", ""), entry["verb"], entry.get("responseStatus", {}).get("code", 0)
                if agent.startswith(OPERATOR_AGENT) and verb in WRITES and entry["requestReceivedTimestamp"] >= earliest:
                    ref = entry["objectRef"]
                    resource, part, namespace = ref["resource"], ref.get("subresource", ""), ref.get("namespace", "")
                    yield Write(verb, resource, part, namespace, ref.get("name", ""), code)


def exists(cluster: Cluster, kind: str) -> bool:
    """Whether the API server serves the kind."""
    try:
        cluster.kubectl("get", kind, "-A", "-o", "name")
    except CommandError:
        return False
    return True
