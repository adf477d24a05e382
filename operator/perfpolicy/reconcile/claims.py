"""What policies claim, and which of two policies that claim the same is the elder. Pure.

A claim is read from the raw spec, before anything is resolved, so that after a restart no younger policy is accepted merely because it is
looked at first.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from perfpolicy.policy.model import PolicyKey


class Claim(NamedTuple):
    """One thing only one policy may have. `scope`: the namespace, or empty for what is unique in the cluster."""

    what: str
    scope: str
    name: str

    def __str__(self) -> str:
        return f"{self.what} {self.name}"


class Rank(NamedTuple):
    """Orders policies by age; equally old ones by name."""

    created: str
    key: PolicyKey


def claims_of(raw: Mapping[str, Any]) -> frozenset[Claim]:
    """Workload, Service and (host, path) pairs of a raw policy; what is missing or of the wrong type claims nothing."""
    metadata, spec = raw["metadata"], _mapping(raw.get("spec"))
    return frozenset((*_own(spec, metadata["namespace"], metadata["name"]), *_hosts(spec)))


def _own(spec: Mapping[str, Any], namespace: str, policy: str) -> Iterator[Claim]:
    workload = _mapping(spec.get("workload"))
    target, service = _mapping(workload.get("targetRef")), _mapping(workload.get("serviceRef"))
    kind, name = (target.get("kind", ""), target.get("name", "")) if target else ("Deployment", policy)
    yield Claim("workload", namespace, f"{kind}/{name}")
    yield Claim("Service", namespace, str(service.get("name", policy)))


def _hosts(spec: Mapping[str, Any]) -> Iterator[Claim]:
    traffic = _mapping(spec.get("traffic"))
    matches = [match for route in _list(traffic.get("routes")) for match in _list(_mapping(route).get("matches")) or [{}]]
    paths = {_path(_mapping(match)) for match in matches} or {"/"}
    for host in _list(traffic.get("hosts")):
        for path in paths:
            yield Claim("host", "", f"{host}{path}")


def _path(match: Mapping[str, Any]) -> str:
    path = match.get("path")
    value = path.get("value") if isinstance(path, Mapping) else path
    return value if isinstance(value, str) and value.startswith("/") else "/"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


class ClaimIndex:
    """Who claims what."""

    def __init__(self) -> None:
        self._ranks: dict[PolicyKey, Rank] = {}
        self._claims: dict[PolicyKey, frozenset[Claim]] = {}
        self._holders: dict[Claim, set[PolicyKey]] = {}

    def put(self, key: PolicyKey, created: str, claims: frozenset[Claim]) -> None:
        """Register or change a policy's claims. `created`: its creationTimestamp."""
        self.remove(key)
        self._ranks[key], self._claims[key] = Rank(created, key), claims
        for claim in claims:
            self._holders.setdefault(claim, set()).add(key)

    def remove(self, key: PolicyKey) -> None:
        """Forget a policy."""
        self._ranks.pop(key, None)
        for claim in self._claims.pop(key, frozenset()):
            holders = self._holders[claim]
            holders.discard(key)
            if not holders:
                del self._holders[claim]

    def elders(self, key: PolicyKey) -> list[tuple[PolicyKey, Claim]]:
        """Older policies that claim something this one claims, the eldest first; none for a policy that is gone."""
        mine = self._ranks.get(key)
        if mine is None:
            return []
        found = {(self._ranks[other], claim) for claim in self._claims[key] for other in self._holders[claim] if self._ranks[other] < mine}
        return [(rank.key, claim) for rank, claim in sorted(found)]

    def sharing(self, key: PolicyKey) -> frozenset[PolicyKey]:
        """Other policies that claim something this one claims."""
        return frozenset(other for claim in self._claims.get(key, ()) for other in self._holders[claim]) - {key}
