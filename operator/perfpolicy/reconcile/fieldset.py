"""Is a live child what we last applied? Answered from its metadata alone. Pure.

Why this works: server-side apply records in `managedFields` which fields each manager owns, and any other actor that changes or removes a
field takes its ownership away from us. So a child is converged when the digest annotation equals the digest of the manifest wanted now,
and our entry still owns every field of it. No full object is read, no normalised value compared, nothing remembered across a restart.

One actor escapes that: somebody who applies under our own manager's name and keeps the annotation. The time of our entry moves then, so a
running operator sees it; one that was down does not (docs/children.md).
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from perfpolicy.vocabulary import APPLIED_ANNOTATION, FIELD_MANAGER

Manifest = dict[str, Any]
_OWNER = "<owner>"
_IDENTITY = frozenset({"apiVersion", "kind", "metadata"})
_OURS_IN_METADATA = frozenset({"labels", "annotations", "ownerReferences"})


def digest(manifest: Mapping[str, Any]) -> str:
    """Digest of a manifest's content: equal for equal content in any key order."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def with_digest(manifest: Mapping[str, Any]) -> Manifest:
    """The manifest with its own digest as an annotation: what is applied."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_ANNOTATION: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def our_fields(managed: Iterable[Mapping[str, Any]], owner_uid: str = "") -> str:
    """Our entry of metadata.managedFields as canonical text; empty without one.

    The owner's UID is masked and the text interned: so thousands of children share a few shapes.
    """
    entry = _our_entry(managed)
    if entry is None:
        return ""
    text = json.dumps(entry.get("fieldsV1", {}), sort_keys=True, separators=(",", ":"))
    return sys.intern(text.replace(owner_uid, _OWNER) if owner_uid else text)


def our_time(managed: Iterable[Mapping[str, Any]]) -> str:
    """When our entry of metadata.managedFields last changed a value or gained a field, to the second; empty without one."""
    entry = _our_entry(managed)
    return "" if entry is None else str(entry.get("time", ""))


def _our_entry(managed: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next(
        (e for e in managed if e.get("manager") == FIELD_MANAGER and e.get("operation") == "Apply" and not e.get("subresource")), None
    )


def owner_of(managed: Iterable[Mapping[str, Any]], *path: str, subresource: str = "") -> str:
    """Another manager that owns the field at `path` (through `subresource` when given, else through any), or an empty text."""
    for entry in managed:
        if subresource and entry.get("subresource") != subresource:
            continue
        if entry.get("manager") != FIELD_MANAGER and _contains(entry.get("fieldsV1", {}), path):
            return str(entry.get("manager", "unknown"))
    return ""


def owns(fields: str, manifest: Mapping[str, Any], owner_uid: str = "") -> bool:
    """Whether the field set (as `our_fields` returns it for that owner) covers every field of the manifest applied.

    A set without children owns its value whole (an atomic list or map); so is an empty map or list owned, outside the metadata.
    """
    if not fields:
        return False
    metadata = {key: value for key, value in manifest.get("metadata", {}).items() if key in _OURS_IN_METADATA and value}
    wanted = {key: value for key, value in manifest.items() if key not in _IDENTITY}
    return _covers(json.loads(fields.replace(_OWNER, owner_uid)), {**wanted, **({"metadata": metadata} if metadata else {})})


def _covers(node: Mapping[str, Any], value: Any) -> bool:
    if not any(key != "." for key in node):
        return True
    if isinstance(value, Mapping):
        return all(item is None or (f"f:{key}" in node and _covers(node[f"f:{key}"], item)) for key, item in value.items())
    if isinstance(value, list):
        keys = {key[2:]: child for key, child in node.items() if key.startswith("k:")}
        members = {key[2:] for key in node if key.startswith("v:")}
        return all(_covers_item(keys, members, item) for item in value)
    return True


def _covers_item(keys: Mapping[str, Mapping[str, Any]], members: set[str], item: Any) -> bool:
    if not isinstance(item, Mapping):
        return json.dumps(item) in members
    for text, child in keys.items():
        key = json.loads(text)
        # A key field the manifest leaves to the server's default (a port's protocol) cannot contradict.
        if all(name not in item or item[name] == part for name, part in key.items()) and _covers(child, item):
            return True
    return False


def _contains(node: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    for part in path:
        step = node.get(f"f:{part}")
        if step is None:
            return False
        node = step
    return True
