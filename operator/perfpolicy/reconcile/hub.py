"""From what the watches see to the policies that are concerned.

The one place that knows which observation concerns whom: a child its owner, a workload or Service the policies that refer to it, a foreign
route the policies of the same host. Implements the watches' sink; runs in the event loop and never blocks.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, Protocol

from perfpolicy.policy.model import PolicyKey
from perfpolicy.reconcile import foreign, workloads
from perfpolicy.reconcile.children import Child, ChildCache, ChildRef
from perfpolicy.reconcile.queue import Work
from perfpolicy.render.manifest import GroupKind

NAMESPACE: Final = GroupKind("", "Namespace")
SERVICE: Final = GroupKind("", "Service")


class Kinded(Protocol):
    """Anything that names a kind."""

    @property
    def group(self) -> str:
        """API group."""

    @property
    def kind(self) -> str:
        """Kind."""


class Dependents:
    """Which policies look at what: objects they refer to, hosts they route, names they wait for."""

    def __init__(self) -> None:
        self._tokens: dict[PolicyKey, frozenset[Hashable]] = {}
        self._keys: dict[Hashable, set[PolicyKey]] = {}

    def set(self, key: PolicyKey, tokens: Iterable[Hashable]) -> None:
        """Replace what a policy looks at; nothing forgets it."""
        for token in self._tokens.pop(key, frozenset()):
            self._keys[token].discard(key)
            if not self._keys[token]:
                del self._keys[token]
        wanted = frozenset(tokens)
        if wanted:
            self._tokens[key] = wanted
        for token in wanted:
            self._keys.setdefault(token, set()).add(key)

    def add(self, key: PolicyKey, tokens: Iterable[Hashable]) -> None:
        """Look at these too."""
        self.set(key, self._tokens.get(key, frozenset()) | frozenset(tokens))

    def of(self, token: Hashable) -> tuple[PolicyKey, ...]:
        """Policies that look at it."""
        return tuple(self._keys.get(token, ()))


def host_token(host: str) -> Hashable:
    """Looks at who routes the host."""
    return ("host", host)


def replicas_token(workload: ChildRef) -> Hashable:
    """Looks at how many pods the workload has, not at its spec."""
    return ("replicas", workload)


def pods_token(namespace: str) -> Hashable:
    """Looks at who selects or scales pods of the namespace."""
    return ("pods", namespace)


class Hub:
    """Holds what is observed and queues the policies concerned."""

    def __init__(self, enqueue: Callable[[PolicyKey, Work], None], child_kinds: frozenset[GroupKind]) -> None:
        self._enqueue = enqueue
        self._child_kinds = child_kinds
        self.children = ChildCache(self._child_changed)
        self.foreign = foreign.ForeignClaims(self._foreign_changed)
        self.workloads = workloads.Workloads(self._workload_changed)
        self.namespaces: dict[str, Mapping[str, str]] = {}
        self.terminating: set[str] = set()
        """Namespaces being deleted: nothing can be created there, and what goes must not be repaired."""
        self.dependents = Dependents()

    def put(self, resource: Kinded, obj: Mapping[str, Any]) -> None:
        """The object exists, as shown."""
        kind, metadata = GroupKind(resource.group, resource.kind), obj["metadata"]
        if kind == NAMESPACE:
            self._namespace(metadata["name"], metadata.get("labels") or {}, going="deletionTimestamp" in metadata)
            return
        ref = ChildRef(kind, metadata.get("namespace", ""), metadata["name"])
        if kind in self._child_kinds:
            self.children.put(kind, metadata)
        if kind in foreign.KINDS:
            self.foreign.put(kind, obj)
        if kind in workloads.KINDS:
            self.workloads.put(ref, obj)
        if kind == SERVICE:
            self._tell(self.dependents.of(ref))

    def drop(self, resource: Kinded, obj: Mapping[str, Any]) -> None:
        """The object is gone, or no longer selected by its watch."""
        kind, metadata = GroupKind(resource.group, resource.kind), obj["metadata"]
        if kind == NAMESPACE:
            self._forget_namespace(metadata["name"])
            return
        ref = ChildRef(kind, metadata.get("namespace", ""), metadata["name"])
        self.children.drop(kind, metadata)
        self.foreign.drop(ref)
        self.workloads.drop(ref)
        if kind == SERVICE:
            self._tell(self.dependents.of(ref))

    def retain(self, resource: Kinded, namespace: str | None, names: set[tuple[str, str]]) -> None:
        """A complete list held exactly these (namespace, name)."""
        kind = GroupKind(resource.group, resource.kind)
        if kind == NAMESPACE:
            for gone in set(self.namespaces) - {name for _, name in names}:
                self._forget_namespace(gone)
            return
        self.children.retain(kind, namespace, names)
        for known in (self.foreign, self.workloads):
            for ref in known.refs(kind):
                if (ref.namespace, ref.name) not in names and namespace in (None, ref.namespace):
                    known.drop(ref)

    def _forget_namespace(self, name: str) -> None:
        self.namespaces.pop(name, None)
        self.terminating.discard(name)

    def _namespace(self, name: str, labels: Mapping[str, str], *, going: bool) -> None:
        if going:
            self.terminating.add(name)
        else:
            self.terminating.discard(name)
        old = self.namespaces.get(name)
        self.namespaces[name] = labels
        if old != labels:
            self._tell(self.dependents.of(ChildRef(NAMESPACE, "", name)))

    def _child_changed(self, ref: ChildRef, old: Child | None, new: Child | None) -> None:
        owners = {child.owner if child.owned_by_policy else child.policy for child in (old, new) if child is not None}
        self._tell(PolicyKey(ref.namespace, owner) for owner in owners if owner)
        self._tell(self.dependents.of(ref))

    def _workload_changed(self, ref: ChildRef, spec: bool) -> None:
        self._tell(self.dependents.of(replicas_token(ref)), Work.STATUS)
        if spec:
            self._tell(self.dependents.of(ref))

    def _foreign_changed(self, ref: ChildRef, hosts: frozenset[str]) -> None:
        for host in hosts:
            self._tell(self.dependents.of(host_token(host)))
        if ref.kind in foreign.OF_PODS | foreign.OF_TARGETS:
            self._tell(self.dependents.of(pods_token(ref.namespace)))

    def _tell(self, keys: Iterable[PolicyKey], work: Work = Work.RECONCILE) -> None:
        for key in keys:
            self._enqueue(key, work)
