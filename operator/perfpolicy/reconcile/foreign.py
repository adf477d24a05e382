"""What other people's objects claim: hosts (VirtualService, DestinationRule), pods (PeerAuthentication, Telemetry, PodDisruptionBudget),
and what is scaled (HorizontalPodAutoscaler, KEDA's ScaledObject).

Why: two VirtualServices for one host, or two PeerAuthentications for one pod, are merged or dropped by Istio in an order nobody chose; a
pod under two PodDisruptionBudgets cannot be evicted at all; two autoscalers of one workload undo each other. Names do not tell; what the
objects say does. Fed by unfiltered watches of these kinds; keeps hosts, selectors and targets only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from perfpolicy.policy.model import Policy, Workload
from perfpolicy.reconcile.children import ChildRef, other_manager
from perfpolicy.render import registry
from perfpolicy.render.manifest import GroupKind
from perfpolicy.vocabulary import ADOPT_ANNOTATION, GROUP, MANAGED_BY, MANAGED_BY_LABEL, POLICY_KIND, POLICY_LABEL, Reason

VIRTUAL_SERVICE: Final = GroupKind("networking.istio.io", "VirtualService")
DESTINATION_RULE: Final = GroupKind("networking.istio.io", "DestinationRule")
PEER_AUTHENTICATION: Final = GroupKind("security.istio.io", "PeerAuthentication")
DISRUPTION_BUDGET: Final = GroupKind("policy", "PodDisruptionBudget")
AUTOSCALER: Final = GroupKind("autoscaling", "HorizontalPodAutoscaler")
SCALED_OBJECT: Final = GroupKind("keda.sh", "ScaledObject")
TELEMETRY: Final = GroupKind("telemetry.istio.io", "Telemetry")
OF_PODS: Final = frozenset({PEER_AUTHENTICATION, TELEMETRY, DISRUPTION_BUDGET})
OF_TARGETS: Final = frozenset({AUTOSCALER, SCALED_OBJECT})
KINDS: Final = frozenset({VIRTUAL_SERVICE, DESTINATION_RULE}) | OF_PODS | OF_TARGETS
_SUFFIXES: Final = {kind.group_kind: kind.suffixes for kind in registry.KINDS}


class Selector(NamedTuple):
    """A label selector: all of `labels`, and all of `expressions` (key, operator, values)."""

    labels: tuple[tuple[str, str], ...]
    expressions: tuple[tuple[str, str, frozenset[str]], ...] = ()

    def overlaps(self, workload: Workload) -> bool:
        """Whether it selects pods of the workload: those of its template, or some of those its own selector does."""
        said = workload.pod_labels or workload.selector
        return self._matches(said) or workload.selector.items() <= dict(self.labels).items()

    def _matches(self, labels: Mapping[str, str]) -> bool:
        equal = all(labels.get(key) == value for key, value in self.labels)
        return equal and all(_holds(labels.get(key), operator, values) for key, operator, values in self.expressions)


def _holds(value: str | None, operator: str, values: frozenset[str]) -> bool:
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return True


@dataclass(frozen=True, slots=True)
class ForeignClaim:
    """What one foreign object claims. `hosts` are full names; `exported`: namespaces it is shown to, `*` for all of them; `target`: what it
    scales.

    `left_by`: policy of the same namespace that its labels say it was written for, though no policy owns it; `adopt`: the one that may take
    it over.
    """

    manager: str
    left_by: str
    adopt: str
    hosts: frozenset[str] = frozenset()
    exported: frozenset[str] = frozenset()
    pods: Selector | None = None
    target: ChildRef | None = None


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
        self._scaling: dict[ChildRef, set[ChildRef]] = {}

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
                if _may_be_adopted(ref, claim, policy):
                    continue
                if ref.namespace == policy.key.namespace or (_abroad(ref, claim, host, policy) and entitled(ref.namespace, host)):
                    yield Withheld(ref.kind, Reason.HOST_CLAIMED, f"{ref} ({claim.manager}) already routes the host {host}")
        yield from self._selecting(policy)
        yield from self._scaling_it(policy)

    def _selecting(self, policy: Policy) -> Iterator[Withheld]:
        for ref in sorted(self._selectors.get(policy.key.namespace, ()), key=str):
            claim = self._claims[ref]
            if claim.pods is not None and claim.pods.overlaps(policy.workload) and _stands(ref, claim, policy):
                yield Withheld(ref.kind, Reason.PODS_CLAIMED, f"{ref} ({claim.manager}) already selects the same pods")

    def _scaling_it(self, policy: Policy) -> Iterator[Withheld]:
        workload = workload_ref(policy)
        # A ScaledObject is named before the HorizontalPodAutoscaler that KEDA makes of it.
        for ref in sorted(self._scaling.get(workload, ()), key=lambda ref: (ref.kind == AUTOSCALER, str(ref))):
            claim = self._claims[ref]
            if _stands(ref, claim, policy):
                yield Withheld(AUTOSCALER, Reason.SCALE_TARGET_CLAIMED, f"{ref} ({claim.manager}) already scales {workload}")

    def scales(self, workload: ChildRef) -> bool:
        """Whether a foreign autoscaler scales it."""
        return workload in self._scaling

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
            if claim.pods is not None:
                self._selectors.setdefault(ref.namespace, set()).add(ref)
            if claim.target is not None:
                self._scaling.setdefault(claim.target, set()).add(ref)
        if old != claim:
            self._on_change(ref, frozenset(host for one in (old, claim) if one is not None for host in one.hosts))

    def _unlink(self, ref: ChildRef, old: ForeignClaim) -> None:
        for host in old.hosts:
            self._by_host[host].discard(ref)
            if not self._by_host[host]:
                del self._by_host[host]
        if old.pods is not None:
            self._selectors[ref.namespace].discard(ref)
        if old.target is not None:
            self._scaling[old.target].discard(ref)
            if not self._scaling[old.target]:
                del self._scaling[old.target]


def _abroad(ref: ChildRef, claim: ForeignClaim, host: str, policy: Policy) -> bool:
    """A route of another namespace for an external host that others are shown: gateways anywhere may route it."""
    elsewhere = ref.namespace != policy.key.namespace and bool(claim.exported - {ref.namespace})
    return ref.kind == VIRTUAL_SERVICE and host != policy.service.fqdn and elsewhere


def workload_ref(policy: Policy) -> ChildRef:
    """The workload a policy speaks about."""
    workload = policy.workload
    return ChildRef(GroupKind(workload.group, workload.kind), policy.key.namespace, workload.name)


def _stands(ref: ChildRef, claim: ForeignClaim, policy: Policy) -> bool:
    """An object of the policy's namespace that is neither left behind by it nor offered to it."""
    return claim.left_by != policy.key.name and not _may_be_adopted(ref, claim, policy)


def _may_be_adopted(ref: ChildRef, claim: ForeignClaim, policy: Policy) -> bool:
    """Its owner gives it to the policy, and it has the name of one of the policy's own children."""
    here = ref.namespace == policy.key.namespace and claim.adopt == policy.key.name
    return here and ref.name in {policy.key.name + suffix for suffix in _SUFFIXES.get(ref.kind, ())}


def _is_ours(metadata: Mapping[str, Any]) -> bool:
    """Labels alone say nothing: anybody may write them. An owner that does not exist gets the object collected."""
    owners = metadata.get("ownerReferences", ())
    return any(owner.get("kind") == POLICY_KIND and owner.get("apiVersion", "").startswith(f"{GROUP}/") for owner in owners)


def _left_by(metadata: Mapping[str, Any]) -> str:
    labels = metadata.get("labels") or {}
    return str(labels.get(POLICY_LABEL, "")) if labels.get(MANAGED_BY_LABEL) == MANAGED_BY else ""


def claim_of(ref: ChildRef, obj: Mapping[str, Any]) -> ForeignClaim | None:
    """What a foreign object claims; None where it claims nothing that could collide. Pure."""
    spec, metadata = obj.get("spec") or {}, obj["metadata"]
    manager = other_manager(metadata.get("managedFields", ())) or "somebody else"
    claim = ForeignClaim(manager, _left_by(metadata), (metadata.get("annotations") or {}).get(ADOPT_ANNOTATION, ""))
    if ref.kind in OF_PODS:
        pods = _selector(ref.kind, spec.get("selector"))
        return None if pods is None else replace(claim, pods=pods)
    if ref.kind in OF_TARGETS:
        target = spec.get("scaleTargetRef") or {}
        group, _, _ = (target.get("apiVersion") or "apps/v1").rpartition("/")
        scaled = ChildRef(GroupKind(group, target.get("kind", "Deployment")), ref.namespace, target.get("name", ""))
        return replace(claim, target=scaled)
    named = spec.get("hosts") or [] if ref.kind == VIRTUAL_SERVICE else [spec.get("host") or ""]
    hosts = frozenset(full_name(host, ref.namespace) for host in named if host)
    return replace(claim, hosts=hosts, exported=exported_to(spec.get("exportTo"), ref.namespace)) if hosts else None


def _selector(kind: GroupKind, raw: Mapping[str, Any] | None) -> Selector | None:
    """None where it selects nothing, or, of a mesh object, the whole namespace: there the one for the pods wins."""
    labels = tuple(sorted(((raw or {}).get("matchLabels") or {}).items()))
    if kind != DISRUPTION_BUDGET:
        return Selector(labels) if labels else None
    if raw is None:
        return None
    expressions = ((each["key"], each["operator"], frozenset(each.get("values") or ())) for each in raw.get("matchExpressions") or ())
    return Selector(labels, tuple(expressions))


def exported_to(named: Iterable[str] | None, namespace: str) -> frozenset[str]:
    """Namespaces that are shown an object of `namespace`: of `exportTo`, where `.` is its own, `~` none, and nothing at all means `*`."""
    return frozenset(namespace if name == "." else name for name in named or ("*",) if name != "~")


def full_name(host: str, namespace: str) -> str:
    """A mesh host as Istio completes it: a name without dots is a Service of the object's own namespace."""
    return host if "." in host or host == "*" else f"{host}.{namespace}.svc.cluster.local"
