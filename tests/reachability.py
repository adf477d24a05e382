"""Who may reach whom, computed from NetworkPolicy objects alone: an oracle that shares no code with the renderer.

No CNI that enforces NetworkPolicies can be had in the lab, so this implements the API's documented semantics: a pod is isolated in a
direction once any policy selects it for that direction; then traffic needs a rule of one of those policies; and both ends must agree.
Selectors with matchLabels and matchExpressions, ipBlocks with exceptions, numbered, named and ranged ports, TCP, UDP and SCTP.

Stricter than the API in one thing: a pod's own node gets no free pass, so health checks must be admitted by a rule.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any


@dataclass(frozen=True)
class Host:
    """Something with an address that is no pod: a node, a machine outside."""

    name: str
    ip: str


@dataclass(frozen=True)
class Pod:
    """A pod. `ports` are its named container ports."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    ip: str
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """Namespace labels by name, and every NetworkPolicy as raw object."""

    namespaces: Mapping[str, Mapping[str, str]]
    policies: tuple[Mapping[str, Any], ...]

    def reaches(self, source: Pod | Host, target: Pod | Host, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection from source to the target's port is let out and let in."""
        return self._allowed("Egress", source, target, target, port, protocol) and self._allowed(
            "Ingress", target, source, target, port, protocol
        )

    def _allowed(self, direction: str, end: Pod | Host, peer: Pod | Host, target: Pod | Host, port: int, protocol: str) -> bool:
        """Whether `end` agrees to talk with `peer`; the port is always the target's."""
        if not isinstance(end, Pod):
            return True
        isolating = [policy for policy in self.policies if _isolates(policy, direction, end)]
        side = "from" if direction == "Ingress" else "to"
        rules = [rule for policy in isolating for rule in policy["spec"].get(direction.lower()) or ()]
        return not isolating or any(
            self._admits_peer(rule.get(side), peer, end.namespace) and _admits_port(rule.get("ports"), target, port, protocol)
            for rule in rules
        )

    def _admits_peer(self, peers: Iterable[Mapping[str, Any]] | None, other: Pod | Host, own_namespace: str) -> bool:
        return not peers or any(self._is_peer(peer, other, own_namespace) for peer in peers)

    def _is_peer(self, peer: Mapping[str, Any], other: Pod | Host, own_namespace: str) -> bool:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            address = ip_address(other.ip)
            return address in ip_network(block["cidr"]) and not any(address in ip_network(hole) for hole in block.get("except", ()))
        if not isinstance(other, Pod):
            return False
        if "namespaceSelector" in peer:
            if not selects(peer["namespaceSelector"], self.namespaces[other.namespace]):
                return False
        elif other.namespace != own_namespace:
            return False
        return "podSelector" not in peer or selects(peer["podSelector"], other.labels)


def _isolates(policy: Mapping[str, Any], direction: str, pod: Pod) -> bool:
    spec = policy["spec"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
    return policy["metadata"]["namespace"] == pod.namespace and direction in types and selects(spec["podSelector"], pod.labels)


def _admits_port(ports: Iterable[Mapping[str, Any]] | None, target: Pod | Host, port: int, protocol: str) -> bool:
    return not ports or any(_is_port(entry, target, port, protocol) for entry in ports)


def _is_port(entry: Mapping[str, Any], target: Pod | Host, port: int, protocol: str) -> bool:
    if entry.get("protocol", "TCP") != protocol:
        return False
    wanted = entry.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return isinstance(target, Pod) and target.ports.get(wanted) == port
    return bool(wanted <= port <= entry.get("endPort", wanted))


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A LabelSelector against labels; the empty one selects everything."""
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or ()
    return all(labels.get(key) == value for key, value in wanted.items()) and all(_holds(item, labels) for item in expressions)


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values", ())
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"unknown operator {expression['operator']!r}")
