"""What other people's mesh objects claim: hosts (VirtualService, DestinationRule) and pods (PeerAuthentication).

Why: two VirtualServices for one host, or two PeerAuthentications for one pod, are merged or dropped by Istio in an order nobody chose.
Names do not tell; what the objects say does. Fed by unfiltered watches of these three kinds; keeps hosts and selectors only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from perfpolicy.policy.model import Policy
from perfpolicy.reconcile.children import ChildRef, other_manager
from perfpolicy.render.manifest import GroupKind
from perfpolicy.vocabulary import GROUP, MANAGED_BY, MANAGED_BY_LABEL, POLICY_KIND, POLICY_LABEL, Reason

VIRTUAL_SERVICE: Final = GroupKind("networking.istio.io", "VirtualService")
DESTINATION_RULE: Final = GroupKind("networking.istio.io", "DestinationRule")
PEER_AUTHENTICATION: Final = GroupKind("security.istio.io", "PeerAuthentication")
KINDS: Final = frozenset({VIRTUAL_SERVICE, DESTINATION_RULE, PEER_AUTHENTICATION})


@dataclass(frozen=True, slots=True)
class ForeignClaim:
    """What one foreign object claims. `hosts` are full names; `exported`: namespaces it is shown to, `*` for all of them.

    `left_by`: policy of the same namespace that its labels say it was written for, though no policy owns it.
    """

    hosts: frozenset[str]
    pods: tuple[tuple[str, str], ...]
    exported: frozenset[str]
    manager: str
    left_by: str


@dataclass(frozen=True, slots=True)
class Withheld:
    """Why a kind of child is not written: somebody else's object claims the same."""

    kind: GroupKind
    reason: Reason
    message: str


Entitled = Callable[[str, str], bool]
"""Whether objects of a namespace may claim an external host."""


class ForeignClaims:
    """Claims of foreign objects, by object and by host."""

    def __init__(self, on_change: Callable[[ChildRef, frozenset[str]], None]) -> None:
        """`on_change` hears of the object and the hosts it claims now or claimed before."""
        self._on_change = on_change
        self._claims: dict[ChildRef, ForeignClaim] = {}
        self._by_host: dict[str, set[ChildRef]] = {}
        self._selectors: dict[str, set[ChildRef]] = {}

    def put(self, kind: GroupKind, obj: Mapping[str, Any]) -> None:
        """The object exists, as shown. Policies' own children claim nothing here."""
        ref = ChildRef(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        claim = None if _is_ours(obj["metadata"]) else claim_of(ref, obj)
        self._change(ref, claim)

    def drop(self, ref: ChildRef) -> None:
        """The object is gone."""
        self._change(ref, None)

    def refs(self, kind: GroupKind) -> tuple[ChildRef, ...]:
        """Known objects of a kind."""
        return tuple(ref for ref in self._claims if ref.kind == kind)

    def withheld(self, policy: Policy, entitled: Entitled) -> Iterator[Withheld]:
        """Kinds this policy must not write because of a foreign object.

        In its own namespace that is whatever claims one of its hosts; in another, a route for an external host of those `entitled` to it.
        """
        for host in (policy.service.fqdn, *policy.traffic.hosts):
            for ref, claim in self._claiming(host, policy):
                if ref.namespace == policy.key.namespace or (_abroad(ref, claim, host, policy) and entitled(ref.namespace, host)):
                    yield Withheld(ref.kind, Reason.HOST_CLAIMED, f"{ref} ({claim.manager}) already routes the host {host}")
        yield from self._selecting(policy)

    def _selecting(self, policy: Policy) -> Iterator[Withheld]:
        namespace = policy.key.namespace
        for ref in sorted(self._selectors.get(namespace, ()), key=str):
            claim = self._claims[ref]
            if set(claim.pods) <= set(policy.workload.selector.items()) and claim.left_by != policy.key.name:
                yield Withheld(ref.kind, Reason.PODS_CLAIMED, f"{ref} ({claim.manager}) already selects the same pods")

    def reported(self, policy: Policy, entitled: Entitled) -> Iterator[Withheld]:
        """Routes of other namespaces that may get in the way, told because nothing is withheld for them.

        For the policy's own Service, where its namespace is shown them, and for its external hosts, by namespaces not `entitled` to those.
        Were ours withheld, anybody could take anybody's route and its protection away by writing one of his own.
        """
        own = policy.service.fqdn
        for ref, claim in self._claiming(own, policy):
            shown = not claim.exported.isdisjoint({"*", policy.key.namespace})
            if ref.kind == VIRTUAL_SERVICE and ref.namespace != policy.key.namespace and shown:
                yield Withheld(ref.kind, Reason.HOST_CLAIMED, f"{ref} ({claim.manager}) also routes the host {own} of this namespace")
        for host in policy.traffic.hosts:
            for ref, claim in self._claiming(host, policy):
                if _abroad(ref, claim, host, policy) and not entitled(ref.namespace, host):
                    message = f"{ref} ({claim.manager}) also routes the host {host}, which class {policy.class_ref.name} does not grant it"
                    yield Withheld(ref.kind, Reason.HOST_CLAIMED, message)

    def _claiming(self, host: str, policy: Policy) -> Iterator[tuple[ChildRef, ForeignClaim]]:
        for ref in sorted(self._by_host.get(host, ()), key=str):
            claim = self._claims[ref]
            if (ref.namespace, claim.left_by) != policy.key:
                yield ref, claim

    def _change(self, ref: ChildRef, claim: ForeignClaim | None) -> None:
        old = self._claims.pop(ref, None)
        if old is not None:
            self._unlink(ref, old)
        if claim is not None:
            self._claims[ref] = claim
            for host in claim.hosts:
                self._by_host.setdefault(host, set()).add(ref)
            if claim.pods:
                self._selectors.setdefault(ref.namespace, set()).add(ref)
        if old != claim:
            self._on_change(ref, frozenset(host for one in (old, claim) if one is not None for host in one.hosts))

    def _unlink(self, ref: ChildRef, old: ForeignClaim) -> None:
        for host in old.hosts:
            self._by_host[host].discard(ref)
            if not self._by_host[host]:
                del self._by_host[host]
        if old.pods:
            self._selectors[ref.namespace].discard(ref)


def _abroad(ref: ChildRef, claim: ForeignClaim, host: str, policy: Policy) -> bool:
    """A route of another namespace for an external host that others are shown: gateways anywhere may route it."""
    elsewhere = ref.namespace != policy.key.namespace and bool(claim.exported - {ref.namespace})
    return ref.kind == VIRTUAL_SERVICE and host != policy.service.fqdn and elsewhere


def _is_ours(metadata: Mapping[str, Any]) -> bool:
    """Labels alone say nothing: anybody may write them. An owner that does not exist gets the object collected."""
    owners = metadata.get("ownerReferences", ())
    return any(owner.get("kind") == POLICY_KIND and owner.get("apiVersion", "").startswith(f"{GROUP}/") for owner in owners)


def _left_by(metadata: Mapping[str, Any]) -> str:
    labels = metadata.get("labels") or {}
    return str(labels.get(POLICY_LABEL, "")) if labels.get(MANAGED_BY_LABEL) == MANAGED_BY else ""


def claim_of(ref: ChildRef, obj: Mapping[str, Any]) -> ForeignClaim | None:
    """What a foreign object claims; None where it claims nothing that could collide. Pure."""
    spec = obj.get("spec") or {}
    if ref.kind == PEER_AUTHENTICATION:
        hosts: frozenset[str] = frozenset()
        pods = tuple(sorted(((spec.get("selector") or {}).get("matchLabels") or {}).items()))
    else:
        named = spec.get("hosts") or [] if ref.kind == VIRTUAL_SERVICE else [spec.get("host") or ""]
        hosts, pods = frozenset(full_name(host, ref.namespace) for host in named if host), ()
    if not hosts and not pods:
        return None
    manager = other_manager(obj["metadata"].get("managedFields", ())) or "somebody else"
    return ForeignClaim(hosts, pods, exported_to(spec.get("exportTo"), ref.namespace), manager, _left_by(obj["metadata"]))


def exported_to(named: Iterable[str] | None, namespace: str) -> frozenset[str]:
    """Namespaces that are shown an object of `namespace`: of `exportTo`, where `.` is its own, `~` none, and nothing at all means `*`."""
    return frozenset(namespace if name == "." else name for name in named or ("*",) if name != "~")


def full_name(host: str, namespace: str) -> str:
    """A mesh host as Istio completes it: a name without dots is a Service of the object's own namespace."""
    return host if "." in host or host == "*" else f"{host}.{namespace}.svc.cluster.local"
