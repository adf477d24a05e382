"""Every leaf of a schema, changed one at a time: what `test_every_leaf` walks. Pure, and knows nothing of any field.

A leaf is named by its path below spec, `[]` for the items of a list and `*` for the values of a map: `traffic.routes[].timeout`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Schema = Mapping[str, Any]


class Change(NamedTuple):
    """One leaf changed and nothing else. `before` is not always what was given: a leaf nobody wrote is written first, then changed."""

    leaf: str
    before: Any
    after: Any


_TRIED = 3
"""Other values tried for a leaf."""
_TEXTS = (
    "alpha", "beta", "/alpha", "/beta", "7s", "3m", "250ms", "7%", "11%", "99.5%", "7", "41", "300m", "96Mi", "p51", "p97", "404", "4xx",
    "10.11.0.0/16", "10.12.0.0/16", "alpha.example.com", "beta.example.com", "http://alpha.example.com", "http://beta.example.com",
    "*/ns/alpha/sa/alpha", "*/ns/beta/sa/beta", "1s", "24h",
    "2026-12-06T02:00:00Z", "2026-12-07T03:30:00Z",
)  # fmt: skip
"""Texts to put into fields: those that fit a field's pattern are tried. A new pattern that none fits is red until one is added."""


def leaves(schema: Schema, path: str = "") -> Iterator[str]:
    """The path of every leaf."""
    if "properties" in schema:
        for name, child in schema["properties"].items():
            yield from leaves(child, _below(path, name))
    elif schema.get("type") == "array":
        yield from leaves(schema["items"], f"{path}[]")
    else:
        yield f"{path}.*" if "additionalProperties" in schema else path


def used(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """The path of every leaf that `value` says something about."""
    if "properties" in schema:
        for name, child in schema["properties"].items():
            if name in value:
                yield from used(child, value[name], _below(path, name))
    elif schema.get("type") == "array":
        for item in value:
            yield from used(schema["items"], item, f"{path}[]")
    else:
        yield f"{path}.*" if "additionalProperties" in schema else path


def changes(schema: Schema, value: Any, path: str = "", known: frozenset[str] = frozenset()) -> Iterator[Change]:
    """Every leaf changed, removed, added to and disabled; leaves not in `known` that `value` lacks are written and changed."""
    if "properties" in schema:
        yield from _of_object(schema, value, path, known)
    elif schema.get("type") == "array":
        yield from _of_list(schema, value, path, known)
    elif "additionalProperties" in schema:
        yield from _of_map(schema, value, path)
    else:
        for other in [other for other in candidates(schema) if other != value][:_TRIED]:
            yield Change(path, value, other)


def candidates(schema: Schema) -> list[Any]:
    """Values of a leaf."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return [{"metadata": {"annotations": {"example.com/leaf": "alpha"}}}]
    if "enum" in schema:
        return list(schema["enum"])
    if schema["type"] == "integer":
        low, high = schema["minimum"], schema["maximum"]
        return [number for number in (low, low + 1, 8081, high) if low <= number <= high]
    pattern, longest = re.compile(schema.get("pattern", "")), schema["maxLength"]
    fitting = [text for text in _TEXTS if pattern.search(text) and len(text) <= longest]
    assert fitting, f"no text fits {pattern.pattern}: add one to tests/leaves.py"
    return fitting


def smallest(schema: Schema) -> Any:
    """The smallest value the schema admits."""
    if "properties" in schema:
        return {name: smallest(schema["properties"][name]) for name in schema.get("required", ())}
    if schema.get("type") == "array":
        return [smallest(schema["items"])]
    if "additionalProperties" in schema:
        return {"alpha": candidates(schema["additionalProperties"])[0]}
    return candidates(schema)[0]


def _of_object(schema: Schema, value: Mapping[str, Any], path: str, known: frozenset[str]) -> Iterator[Change]:
    required = schema.get("required", ())
    for name, child in schema["properties"].items():
        place, rest = _below(path, name), {key: item for key, item in value.items() if key != name}
        if name not in value and not any(leaf == place or leaf.startswith((f"{place}.", f"{place}[")) for leaf in known):
            for leaf, before, after in changes(child, smallest(child), place, known):
                yield Change(leaf, {**rest, name: before}, {**rest, name: after})
            if _is_leaf(child) and len(candidates(child)) == 1:
                yield Change(place, value, {**value, name: smallest(child)})
        if name not in value:
            continue
        for leaf, before, after in changes(child, value[name], place, known):
            yield Change(leaf, {**rest, name: before}, {**rest, name: after})
        if name not in required:
            yield Change(place, value, rest)
    if "mode" in schema["properties"] and "Disabled" in schema["properties"]["mode"].get("enum", ()) and not required:
        yield Change(_below(path, "mode"), value, {"mode": "Disabled"})


def _of_list(schema: Schema, value: list[Any], path: str, known: frozenset[str]) -> Iterator[Change]:
    for index, item in enumerate(value):
        for leaf, before, after in changes(schema["items"], item, f"{path}[]", known):
            yield Change(leaf, _replaced(value, index, before), _replaced(value, index, after))
        yield Change(f"{path}[]", value, value[:index] + value[index + 1 :])
    for item in (smallest(schema["items"]), *([] if "properties" in schema["items"] else candidates(schema["items"])[-1:])):
        if item not in value:
            yield Change(f"{path}[]", value, [*value, item])


def _of_map(schema: Schema, value: Mapping[str, Any], path: str) -> Iterator[Change]:
    for key, item in value.items():
        for other in candidates(schema["additionalProperties"])[:2]:
            if other != item:
                yield Change(f"{path}.*", value, {**value, key: other})
        yield Change(f"{path}.*", value, {name: kept for name, kept in value.items() if name != key})
    yield Change(f"{path}.*", value, {**value, "leaf": candidates(schema["additionalProperties"])[0]})


def _is_leaf(schema: Schema) -> bool:
    return not ("properties" in schema or "additionalProperties" in schema or schema.get("type") == "array")


def _replaced(items: list[Any], index: int, item: Any) -> list[Any]:
    return [*items[:index], item, *items[index + 1 :]]


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
