"""An author's partial object beneath ours: their fields stay unless we say something about the same field. Pure."""

from collections.abc import Mapping
from typing import Any, Final

_KEYS: Final[Mapping[str, str]] = {"containers": "name", "env": "name", "ports": "containerPort"}
"""Lists merged by an element's key, as Kubernetes itself does (only those that named fields write); any other list is one value."""


def merge(over: Mapping[str, Any], under: Mapping[str, Any]) -> dict[str, Any]:
    """`over` with what only `under` has. Mappings merge field by field; our list elements come first."""
    result = dict(over)
    for key, theirs in under.items():
        ours = result.get(key)
        if key not in result:
            result[key] = theirs
        elif isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            result[key] = merge(ours, theirs)
        elif isinstance(ours, list) and isinstance(theirs, list) and key in _KEYS:
            result[key] = _merge_lists(ours, theirs, _KEYS[key])
    return result


def _merge_lists(ours: list[Any], theirs: list[Any], key: str) -> list[Any]:
    known = {item[key] for item in ours}
    same = {item.get(key): item for item in theirs if item.get(key) in known}
    merged = [merge(item, same[item[key]]) if item[key] in same else item for item in ours]
    return merged + [item for item in theirs if item.get(key) not in known]


def without_nulls(value: Any) -> Any:
    """An author's object without its nulls: `field: null` asks for nothing, and server-side apply would own it."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value if item is not None]
    return value
