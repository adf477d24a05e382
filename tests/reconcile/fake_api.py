"""An API server in memory, just true enough for the reconciler: server-side apply with field ownership, UIDs, versions, watches.

Maps are granular and lists atomic, as for a custom resource without list types; ownerReferences are keyed by uid.
"""

import copy
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from perfpolicy.errors import ApiRejected, PerfPolicyError
from perfpolicy.policy.model import PolicyKey
from perfpolicy.reconcile.applier import ref_of
from perfpolicy.reconcile.children import ChildRef
from perfpolicy.reconcile.hub import Hub
from perfpolicy.render.manifest import GroupKind, Manifest
from perfpolicy.vocabulary import FIELD_MANAGER

Fields = dict[str, Any]
_SERVER_SET = ("uid", "resourceVersion", "managedFields", "generation", "creationTimestamp")


@dataclass
class Applied:
    """Answer to an apply."""

    metadata: dict[str, Any]
    created: bool


@dataclass
class FakeApi:
    """ObjectStore, Finder and StatusStore in one. `log` holds every write as (verb, object)."""

    hub: Hub | None = None
    objects: dict[ChildRef, Manifest] = field(default_factory=dict)
    statuses: dict[PolicyKey, Mapping[str, Any]] = field(default_factory=dict)
    status_uids: dict[PolicyKey, str] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    failures: dict[ChildRef, list[PerfPolicyError | None]] = field(default_factory=dict)
    """Errors the next writes of an object meet, first come first served; None: that write succeeds."""
    before_write: dict[ChildRef, Manifest] = field(default_factory=dict)
    """Objects somebody else creates just before our first write of that name."""
    finds: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def apply(self, manifest: Manifest, *, force: bool, manager: str = FIELD_MANAGER) -> Applied:
        ref = ref_of(manifest)
        self._fail(ref)
        if (theirs := self.before_write.pop(ref, None)) is not None:
            self.create(theirs, manager="helm")
        live = self.objects.get(ref)
        wanted_uid = manifest["metadata"].get("uid")
        if wanted_uid and (live is None or live["metadata"]["uid"] != wanted_uid):
            raise ApiRejected("uid mismatch", 409, "Conflict")
        created = live is None
        self.log.append(("create" if created else "apply", str(ref)))
        self._merge(ref, manifest, manager, "Apply", force=force)
        return Applied(copy.deepcopy(self.objects[ref]["metadata"]), created)

    async def delete(self, kind: GroupKind, namespace: str, name: str, uid: str) -> bool:
        ref = ChildRef(kind, namespace, name)
        self._fail(ref)
        live = self.objects.get(ref)
        if live is None or live["metadata"]["uid"] != uid:
            return False
        self.log.append(("delete", str(ref)))
        self.remove(ref)
        return True

    async def read(self, kind: GroupKind, namespace: str | None, name: str) -> Manifest | None:
        return copy.deepcopy(self.objects.get(ChildRef(kind, namespace or "", name)))

    async def find(self, kind: GroupKind, namespace: str, name: str, since: float) -> dict[str, Any] | None:
        self.finds += 1
        found = await self.read(kind, namespace, name)
        return None if found is None else found["metadata"]

    async def write(self, key: PolicyKey, uid: str, status: Mapping[str, Any]) -> bool:
        self.log.append(("status", str(key)))
        self.status_uids[key] = uid
        self.statuses[key] = status
        return True

    def create(self, manifest: Manifest, manager: str = "kubectl-client-side-apply") -> Manifest:
        """Somebody else creates an object."""
        ref = ref_of(manifest)
        self._merge(ref, manifest, manager, "Update", force=True)
        return self.objects[ref]

    def edit(self, ref: ChildRef, changes: Manifest, manager: str = "kubectl-edit", subresource: str = "") -> None:
        """Somebody else changes fields of an object; None removes one."""
        identity = {"apiVersion": self.objects[ref]["apiVersion"], "kind": ref.kind.kind}
        metadata = {"name": ref.name, "namespace": ref.namespace, **changes.get("metadata", {})}
        self._merge(ref, {**changes, **identity, "metadata": metadata}, manager, "Update", force=True, subresource=subresource)

    def apply_as_us(self, manifest: Manifest) -> None:
        """Somebody else applies an object under our own field manager's name."""
        self._merge(ref_of(manifest), manifest, FIELD_MANAGER, "Apply", force=True)

    def remove(self, ref: ChildRef) -> None:
        """An object is deleted; the watch tells."""
        gone = self.objects.pop(ref)
        gone["metadata"]["resourceVersion"] = str(next(self._numbers))
        if self.hub is not None:
            self.hub.drop(ref.kind, gone)

    def writes(self, verb: str = "") -> list[tuple[str, str]]:
        """What was written, statuses apart; of one verb, or all."""
        return [entry for entry in self.log if entry[0] != "status" and verb in ("", entry[0])]

    def _fail(self, ref: ChildRef) -> None:
        if self.failures.get(ref) and (error := self.failures[ref].pop(0)) is not None:
            raise error

    def _merge(self, ref: ChildRef, manifest: Manifest, manager: str, operation: str, *, force: bool, subresource: str = "") -> None:
        live = self.objects.setdefault(ref, self._new(manifest)) if ref not in self.objects else self.objects[ref]
        before = copy.deepcopy(live)
        owners: dict[_Actor, set[tuple[str, ...]]] = {
            (m["manager"], m["operation"], m.get("subresource", "")): set(_paths(m["fieldsV1"])) for m in live["metadata"]["managedFields"]
        }
        me = (manager, operation, subresource)
        mine = set(owners.get(me, ())) or None
        applied = dict(_leaves(manifest))
        others = {other: paths for other, paths in owners.items() if other != me}
        if operation == "Apply":
            if not force and any(_get(live, path) != applied[path] for paths in others.values() for path in paths if path in applied):
                raise ApiRejected("conflict", 409, "Conflict")
            for path in owners.get(me, set()) - set(applied):
                if not any(path in paths for paths in others.values()):
                    _set(live, path, None)
            owners[me] = set(applied)
        for path, value in applied.items():
            if _get(live, path) != value:
                for paths in others.values():
                    paths.discard(path)
                _set(live, path, value)
                if value is not None:
                    owners.setdefault(me, set()).add(path)
        moved = owners.get(me) != mine or _differ(before, live, mine or set())
        live["metadata"]["managedFields"] = _entries(owners, live, {me: f"second {next(self._numbers)}"} if moved else {})
        if live != before:
            live["metadata"]["resourceVersion"] = str(next(self._numbers))
            if live.get("spec") != before.get("spec"):
                live["metadata"]["generation"] += 1
            if self.hub is not None:
                self.hub.put(ref.kind, copy.deepcopy(live))

    def _new(self, manifest: Manifest) -> Manifest:
        number = next(self._numbers)
        metadata = {"name": manifest["metadata"]["name"], "namespace": manifest["metadata"].get("namespace", "")}
        server_set = {"uid": f"uid-{number}", "resourceVersion": str(number), "generation": 0, "managedFields": []}
        return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": {**metadata, **server_set}}


def _leaves(manifest: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in manifest.items():
        if name in ("apiVersion", "kind"):
            continue
        if name == "metadata":
            kept = {k: v for k, v in value.items() if k in ("labels", "annotations", "ownerReferences", "deletionTimestamp")}
            for part, item in kept.items():
                yield from _walk(("metadata", part), item)
        else:
            yield from _walk((name,), value)


def _walk(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _walk((*path, name), item)
    elif path == ("metadata", "ownerReferences") and value:
        for reference in value:
            yield (*path, json.dumps({"uid": reference["uid"]})), reference
    else:
        yield path, value


def _get(live: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(live, list):
            live = next((item for item in live if item["uid"] == json.loads(part)["uid"]), None)
        else:
            live = live.get(part) if isinstance(live, Mapping) else None
    return live


_Actor = tuple[str, str, str]
"""Manager, operation, subresource."""


def _entries(owners: Mapping[_Actor, set[tuple[str, ...]]], live: Manifest, moved: Mapping[_Actor, str]) -> list[Fields]:
    times: dict[_Actor, str] = {
        (m["manager"], m["operation"], m.get("subresource", "")): m["time"] for m in live["metadata"]["managedFields"]
    }
    times |= moved
    return [
        {"manager": m, "operation": o, "time": times[m, o, s], "fieldsV1": _tree(paths), **({"subresource": s} if s else {})}
        for (m, o, s), paths in sorted(owners.items())
        if paths
    ]


def _differ(before: Manifest, now: Manifest, paths: set[tuple[str, ...]]) -> bool:
    return any(_get(before, path) != _get(now, path) for path in paths)


def _set(live: Any, path: tuple[str, ...], value: Any) -> None:
    *parents, last = path
    for part in parents:
        if not isinstance(live.get(part), dict) and part != "ownerReferences":
            live[part] = {}
        live = live.setdefault(part, []) if part == "ownerReferences" else live[part]
    if isinstance(live, list):
        live[:] = [item for item in live if item["uid"] != json.loads(last)["uid"]] + ([value] if value is not None else [])
    elif value is None:
        live.pop(last, None)
    else:
        live[last] = copy.deepcopy(value)


def _tree(paths: set[tuple[str, ...]]) -> Fields:
    tree: Fields = {}
    for path in sorted(paths):
        node = tree
        for part in path:
            node = node.setdefault(f"k:{part}" if part.startswith('{"uid"') else f"f:{part}", {})
    return tree


def _paths(tree: Fields, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not tree:
        yield path
    for key, child in tree.items():
        yield from _paths(child, (*path, key[2:]))
