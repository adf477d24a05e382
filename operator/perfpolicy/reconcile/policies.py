"""The policies and classes as last seen, fed by kopf's events, read by the workers.

Why kept at all: a read from the API server per reconcile would cost a tenth of a burst. A policy is kept as compact JSON (one or two KiB),
without managedFields; its status apart and always the newest seen: a standby that becomes the leader goes on from what another one wrote.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from perfpolicy import json_text
from perfpolicy.api.performance_class import PerformanceClass, parse_class
from perfpolicy.errors import InvalidSpec
from perfpolicy.policy.model import PolicyKey
from perfpolicy.reconcile.claims import ClaimIndex, claims_of

_LEFT_OUT = ("managedFields", "resourceVersion")


@dataclass(frozen=True, slots=True)
class KnownPolicy:
    """One policy. `version`: resourceVersion last seen; `content`: its packed JSON; `status`: that of its status, empty without one."""

    key: PolicyKey
    uid: str
    generation: int
    version: str
    deleting: bool
    class_name: str
    content: bytes
    status: bytes

    def raw(self) -> dict[str, Any]:
        """The object, without status and managedFields."""
        loaded: dict[str, Any] = json_text.load(zlib.decompress(self.content))
        return loaded


class Policies:
    """Every known policy, and what they claim."""

    def __init__(self, on_change: Callable[[PolicyKey], None]) -> None:
        """`on_change` hears of policies that came, went, or changed in anything but their status."""
        self._on_change = on_change
        self._known: dict[PolicyKey, KnownPolicy] = {}
        self.claims = ClaimIndex()

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[PolicyKey]:
        return iter(list(self._known))

    def get(self, key: PolicyKey) -> KnownPolicy | None:
        """The policy, if it exists."""
        return self._known.get(key)

    def put(self, raw: Mapping[str, Any]) -> None:
        """The policy exists, as shown; an older observation of the same object than the known one is ignored."""
        metadata = raw["metadata"]
        key = PolicyKey(metadata["namespace"], metadata["name"])
        old = self._known.get(key)
        same = old is not None and old.uid == metadata["uid"]
        if old is not None and same and _is_older(metadata["resourceVersion"], old.version):
            return
        kept = {name: value for name, value in metadata.items() if name not in _LEFT_OUT}
        spec = raw.get("spec") or {}
        content = _pack({**raw, "metadata": kept, "status": None})
        changed = old is None or not same or old.content != content
        self._known[key] = KnownPolicy(
            key=key,
            uid=metadata["uid"],
            generation=metadata.get("generation", 0),
            version=metadata["resourceVersion"],
            deleting="deletionTimestamp" in metadata,
            class_name=spec.get("className") or "",
            content=content,
            status=_pack(raw["status"]) if raw.get("status") else b"",
        )
        if changed:
            shared = self.claims.sharing(key)
            self.claims.put(key, metadata.get("creationTimestamp", ""), claims_of(raw))
            self._tell({key, *shared, *self.claims.sharing(key)} if not same else {key, *(shared ^ self.claims.sharing(key))})

    def drop(self, key: PolicyKey, uid: str = "") -> None:
        """The policy is gone; with a UID, only if that one is meant."""
        known = self._known.get(key)
        if known is None or (uid and known.uid != uid):
            return
        del self._known[key]
        shared = self.claims.sharing(key)
        self.claims.remove(key)
        self._tell({key, *shared})

    def stale(self, listed: Iterable[Mapping[str, Any]]) -> tuple[set[PolicyKey], set[PolicyKey]]:
        """Compare with a complete metadata list: (policies that are gone, policies whose listed version is newer than the known one)."""
        versions = {PolicyKey(item["namespace"], item["name"]): item for item in listed}
        gone = set(self._known) - set(versions)
        behind = {key for key, item in versions.items() if self._is_behind(key, item)}
        return gone, behind

    def _is_behind(self, key: PolicyKey, item: Mapping[str, Any]) -> bool:
        known = self._known.get(key)
        return known is None or known.uid != item["uid"] or _is_older(known.version, item["resourceVersion"], strictly=True)

    def _tell(self, keys: Iterable[PolicyKey]) -> None:
        for key in sorted(keys):
            self._on_change(key)


def _pack(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 1)


def _is_older(version: str, known: str, *, strictly: bool = False) -> bool:
    """Whether `version` is not newer (strictly: older) than `known`; versions that are not numbers cannot be ordered."""
    if not (version.isdecimal() and known.isdecimal()):
        return False
    return int(version) < int(known) if strictly else int(version) <= int(known)


class Classes:
    """Every known PerformanceClass. A class that breaks a rule is as good as absent, and its problems are reported."""

    def __init__(self, on_change: Callable[[str], None]) -> None:
        """`on_change` hears the name of a class that came, went or changed."""
        self._on_change = on_change
        self._known: dict[str, PerformanceClass] = {}
        self._seen: dict[str, tuple[str, int]] = {}
        self._versions: dict[str, tuple[str, str]] = {}
        self.problems: dict[str, InvalidSpec] = {}

    def __iter__(self) -> Iterator[PerformanceClass]:
        return iter(self._known.values())

    def names(self) -> frozenset[str]:
        """Names of all classes seen, usable or not."""
        return frozenset(self._seen)

    def put(self, raw: Mapping[str, Any]) -> None:
        """The class exists, as shown; an older observation of the same object than the known one is ignored."""
        metadata = raw["metadata"]
        name, annotations = metadata["name"], metadata.get("annotations") or {}
        uid, version = metadata["uid"], metadata.get("resourceVersion", "")
        known_uid, known_version = self._versions.get(name, ("", ""))
        if uid == known_uid and _is_older(version, known_version):
            return
        self._versions[name] = (uid, version)
        seen = (f"{uid}{sorted(annotations.items())}", metadata.get("generation", 0))
        if self._seen.get(name) == seen:
            return
        self._seen[name] = seen
        self._known.pop(name, None)
        self.problems.pop(name, None)
        try:
            self._known[name] = parse_class(raw)
        except InvalidSpec as error:
            self.problems[name] = error
        self._on_change(name)

    def drop(self, name: str) -> None:
        """The class is gone."""
        if self._seen.pop(name, None) is not None:
            self._versions.pop(name, None)
            self._known.pop(name, None)
            self.problems.pop(name, None)
            self._on_change(name)
