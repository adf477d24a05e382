"""What is known of the objects in the cluster that policies own or might collide with.

Fed by the watches (metadata only) and by the answers to our own applies; read by ownership, prune and drift decisions. An entry keeps no
object, only what those decisions need: a few hundred bytes. Touches nothing outside memory.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from typing import Any, NamedTuple

from perfpolicy.reconcile.fieldset import our_fields, our_time, owner_of
from perfpolicy.render.manifest import GroupKind
from perfpolicy.vocabulary import (
    ADOPT_ANNOTATION,
    APPLIED_ANNOTATION,
    FIELD_MANAGER,
    GROUP,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    POLICY_KIND,
    POLICY_LABEL,
)


class ChildRef(NamedTuple):
    """One object by kind and name."""

    kind: GroupKind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.kind} {self.namespace}/{self.name}"


class Since(Enum):
    """What became of our fields since this process last found them as wanted."""

    UNJUDGED = auto()
    """It never did: another process wrote them, or nobody has looked yet."""
    UNTOUCHED = auto()
    TOUCHED = auto()
    """Somebody took fields away from us, or applied under our own name."""


@dataclass(frozen=True, slots=True)
class Child:
    """One live object. Two are equal when nothing a decision depends on differs."""

    uid: str
    version: int = field(compare=False)
    """metadata.resourceVersion, to tell an older observation from a newer one."""
    owner_uid: str
    """UID of the controlling owner; empty without one."""
    owner: str
    """Controlling owner as `Kind/name`; for a policy only its name; empty without one."""
    owned_by_policy: bool
    """The controlling owner is a PerformancePolicy."""
    policy: str
    """Policy named by our labels; empty when the object does not carry them both."""
    applied: str
    """Digest annotation of our last apply."""
    fields: str
    """Our field set, with `owner_uid` masked (see fieldset.our_fields)."""
    applied_at: str
    """Time of our entry in managedFields: it moves with every apply under our name that changes anything, whoever makes it."""
    adopt: str
    """Policy that may take the object over."""
    manager: str
    """Who manages an object that no policy owns, for messages; kept empty on ours so that a controller's status write is no change."""
    scaler: str
    """Who owns spec.replicas through the scale subresource."""
    replicas: str
    """Who else than us owns spec.replicas, in whatever way."""
    router: str
    """Who else owns spec.http (of a VirtualService)."""
    deleting: bool
    since: Since = field(default=Since.UNJUDGED, compare=False)

    def judged(self) -> "Child":
        """The same, found as wanted."""
        return self if self.since is Since.UNTOUCHED else replace(self, since=Since.UNTOUCHED)

    def after(self, known: "Child | None") -> "Child":
        """The same, with what became of it since it was last judged; `known`: what was known of the object before."""
        if known is None or known.uid != self.uid or known.since is Since.UNJUDGED:
            return self
        same = (known.fields, known.applied_at) == (self.fields, self.applied_at)
        return replace(self, since=known.since if same else Since.TOUCHED)


def observe(metadata: Mapping[str, Any]) -> Child:
    """A Child from an object's metadata."""
    managed = metadata.get("managedFields", ())
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    owner = next((ref for ref in metadata.get("ownerReferences", ()) if ref.get("controller")), None)
    by_policy = owner is not None and owner["kind"] == POLICY_KIND and owner["apiVersion"].startswith(f"{GROUP}/")
    policy = labels.get(POLICY_LABEL, "") if labels.get(MANAGED_BY_LABEL) == MANAGED_BY else ""
    return Child(
        uid=metadata.get("uid", ""),
        version=_version(metadata),
        owner_uid=sys.intern(owner["uid"]) if owner else "",
        owner="" if owner is None else sys.intern(owner["name"]) if by_policy else f"{owner['kind']}/{owner['name']}",
        owned_by_policy=by_policy,
        policy=sys.intern(policy),
        applied=annotations.get(APPLIED_ANNOTATION, ""),
        fields=our_fields(managed, owner["uid"] if owner else ""),
        applied_at=sys.intern(our_time(managed)),
        adopt=annotations.get(ADOPT_ANNOTATION, ""),
        manager="" if by_policy else other_manager(managed),
        scaler=owner_of(managed, "spec", "replicas", subresource="scale"),
        replicas=owner_of(managed, "spec", "replicas"),
        router=owner_of(managed, "spec", "http"),
        deleting="deletionTimestamp" in metadata,
    )


def other_manager(managed: Iterable[Mapping[str, Any]]) -> str:
    """The first field manager besides us that manages more than a subresource; empty where there is none."""
    return next(
        (entry.get("manager", "") for entry in managed if entry.get("manager") != FIELD_MANAGER and not entry.get("subresource")), ""
    )


def _version(metadata: Mapping[str, Any]) -> int:
    text = metadata.get("resourceVersion", "")
    return int(text) if text.isdecimal() else 0


Listener = Callable[[ChildRef, Child | None, Child | None], None]
"""Called with the object, what was known before and what is known now (None: not there)."""


class ChildCache:
    """Live objects by kind and name, and by the policy that owns them."""

    def __init__(self, listener: Listener) -> None:
        """`listener` hears of every change a watch reports, not of the answers to our own writes."""
        self._listener = listener
        self._children: dict[GroupKind, dict[tuple[str, str], Child]] = {}
        self._owned: dict[str, set[ChildRef]] = {}
        self._writing: set[ChildRef] = set()
        self._held: dict[ChildRef, Callable[[], None]] = {}

    def get(self, ref: ChildRef) -> Child | None:
        """The object, if it is known."""
        return self._children.get(ref.kind, {}).get((ref.namespace, ref.name))

    def owned(self, uid: str) -> frozenset[ChildRef]:
        """Objects whose controlling owner has this UID."""
        return frozenset(self._owned.get(uid, ()))

    def of_kind(self, kind: GroupKind) -> Iterator[tuple[ChildRef, Child]]:
        """Every known object of a kind."""
        for (namespace, name), child in list(self._children.get(kind, {}).items()):
            yield ChildRef(kind, namespace, name), child

    def learn(self, ref: ChildRef, child: Child | None) -> None:
        """Take over what an answer to our own request said, silently."""
        known = self.get(ref)
        if child is None or known is None or known.uid != child.uid or known.version <= child.version:
            self._store(ref, child)

    def judge(self, ref: ChildRef) -> None:
        """The object is as wanted."""
        if (child := self.get(ref)) is not None:
            self._store(ref, child.judged())

    @contextmanager
    def writing(self, ref: ChildRef) -> Iterator[None]:
        """While we write an object, what the watch shows of it waits: it is most likely that write, and must not be taken for a change."""
        self._writing.add(ref)
        try:
            yield
        finally:
            self._writing.discard(ref)
            if (held := self._held.pop(ref, None)) is not None:
                held()

    def put(self, kind: GroupKind, metadata: Mapping[str, Any]) -> None:
        """A watch shows the object. An observation older than what is known is ignored."""
        ref = _ref(kind, metadata)
        if ref in self._writing:
            self._held[ref] = partial(self.put, kind, metadata)
            return
        known, version = self.get(ref), _version(metadata)
        if known is not None and version and version <= known.version:
            # Mostly the echo of our own write: to look at it costs as much as writing it.
            return
        child = observe(metadata).after(known)
        self._store(ref, child)
        if known != child:
            self._listener(ref, known, child)

    def drop(self, kind: GroupKind, metadata: Mapping[str, Any]) -> None:
        """A watch shows the object gone (deleted, or no longer labelled as ours)."""
        ref = _ref(kind, metadata)
        if ref in self._writing:
            self._held[ref] = partial(self.drop, kind, metadata)
            return
        known, version = self.get(ref), _version(metadata)
        if known is not None and not (version and version < known.version):
            self._store(ref, None)
            self._listener(ref, known, None)

    def retain(self, kind: GroupKind, namespace: str | None, names: Iterable[tuple[str, str]]) -> None:
        """After a complete list: forget every object of the scope that it did not hold (None: all namespaces)."""
        listed = set(names)
        for ref, child in list(self.of_kind(kind)):
            if (ref.namespace, ref.name) not in listed and namespace in (None, ref.namespace):
                self._store(ref, None)
                self._listener(ref, child, None)

    def _store(self, ref: ChildRef, child: Child | None) -> None:
        children = self._children.setdefault(ref.kind, {})
        old = children.pop((ref.namespace, ref.name), None)
        if old is not None and old.owner_uid in self._owned:
            self._owned[old.owner_uid].discard(ref)
            if not self._owned[old.owner_uid]:
                del self._owned[old.owner_uid]
        if child is not None:
            children[(sys.intern(ref.namespace), ref.name)] = child
            if child.owned_by_policy:
                self._owned.setdefault(child.owner_uid, set()).add(ref)


def _ref(kind: GroupKind, metadata: Mapping[str, Any]) -> ChildRef:
    return ChildRef(kind, sys.intern(metadata.get("namespace", "")), metadata["name"])
