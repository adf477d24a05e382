"""Every string of the API, made hostile one at a time, the whole way from spec to children: refused by name, or carried as data.

Walked over the schemas, so that a new field is covered without being named here. All that a string may do to an output: stand in it whole,
where an innocent text of the same field stands.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfpolicy import yaml_text
from perfpolicy.promql.expr import literal_pattern, quote
from perfpolicy.render import KINDS, dump
from tests.test_every_leaf import CLASS, CLASS_SCHEMA, POLICIES, POLICY_SCHEMA, UNLIMITED, outcome

NAME, NAMESPACE = "shop", "shops"
HOSTILE: Final = (
    """x"} or vector(1) # {{ 7*7 }} {% raw %} {# {{ $labels.x }} $1 ${x} $(X) \\n \\ ' ` %(x)s %REQ(x)% [ ( .*""",
    "a: b - &a *a << !!python/object:x {}",
    """/x"} or vector(1) # {{ 7*7 }} $(X) \\ ' `""", 'x"}', "*", ".*", "[", "x\n---\nkind: Secret",
    "x\nmetadata:\n  namespace: kube-system",
    "no", "1e3", "2001-01-01", "", " x ", "\ue0000\ue000", "\x00", "\u2028\x85\x7f😀", "/../kube-system", "kube-system",
    "web.kube-system.svc.cluster.local", "x/ns/kube-system/sa/admin", "0.0.0.0/0", "x" * 10_000, "\ud800",
)  # fmt: skip
"""What means something to YAML, jinja2, PromQL, Alertmanager's templates, Envoy, RE2 or the shell, is long, or is no text at all."""

Place = tuple[str | int, ...]


def strings(schema: Mapping[str, Any], value: Any, path: str = "", place: Place = ()) -> Iterator[tuple[str, Place, Mapping[str, Any]]]:
    """(leaf, place, schema) of every string of `value`; the key of a map is a place that ends with `keys` and the key."""
    if "properties" in schema:
        for name, child in schema["properties"].items():
            if name in value:
                yield from strings(child, value[name], f"{path}.{name}" if path else name, (*place, name))
    elif schema.get("type") == "array":
        for index, item in enumerate(value):
            yield from strings(schema["items"], item, f"{path}[]", (*place, index))
    elif "additionalProperties" in schema:
        for key in value:
            yield f"{path}.*", (*place, key), schema["additionalProperties"]
            yield f"{path} key", (*place, "keys", key), {"maxLength": 10_000}
    elif schema.get("type") == "string" and "enum" not in schema:
        yield path, place, schema


def put(value: Any, place: Place, text: str) -> Any:
    """`value` with the text at a place."""
    first, *rest = place
    if first == "keys":
        return {text if key == rest[0] else key: item for key, item in value.items()}
    inner = put(value[first], tuple(rest), text) if rest else text
    if isinstance(value, list):
        return [inner if index == first else item for index, item in enumerate(value)]
    return {**value, first: inner}


def first_of_each(
    schema: Mapping[str, Any], bases: tuple[Mapping[str, Any], ...]
) -> dict[str, tuple[Mapping[str, Any], Place, Mapping[str, Any]]]:
    """Every string leaf, with the first base that says something about it, and where."""
    found: dict[str, tuple[Mapping[str, Any], Place, Mapping[str, Any]]] = {}
    for base in bases:
        for leaf, place, child in strings(schema, base):
            found.setdefault(leaf, (base, place, child))
    return found


IN_POLICY: Final = first_of_each(POLICY_SCHEMA, ({**POLICIES[0], "className": "plain"}, *POLICIES[1:]))
_SELECTED: Final = {"selector": {"matchLabels": {"team": "shops"}}}
_CLASS: Final = {
    **UNLIMITED,
    "allowedNamespaces": {"names": ["shops"], **_SELECTED},
    "grants": [{**CLASS["grants"][0], "namespaces": {"names": ["shops"], **_SELECTED}}],
    "limits": {"maxTimeout": "20s", "maxRequestRate": {"requests": 10, "per": "2m"}, "maxFault": "10%", "maxSampling": "20%"},
}
IN_CLASS: Final = first_of_each(CLASS_SCHEMA, (_CLASS,))
PLACES: Final = {**IN_POLICY, **{f"class: {leaf}": found for leaf, found in IN_CLASS.items()}}
INNOCENT: Final = ("zebra", "/zebra", "https://zebra", "zebra.example.com", "Zebra")
TAKEN_APART: Final = ("metrics.custom.requests", "metrics.custom.bad")
"""Parsed, and put together again from their parts (tests/policy/test_sources.py, tests/promql/test_sources.py)."""
_TAME: Final = re.compile(r"[A-Za-z0-9./:%_*+-]*")
_REVISION: Final = re.compile(r"vector\([0-9]+\)|perfpolicy-[0-9a-f]{24}")
"""A digest of all rules."""
_LITERAL: Final = re.compile(r'("(?:\\.|[^"\\])*")')
_WAYS: Final[tuple[Callable[[str], str], ...]] = (
    str,
    literal_pattern,
    lambda text: quote(text)[1:-1],
    lambda text: quote(literal_pattern(text))[1:-1],
)
"""How a text is written in an output: as it is, as a pattern that matches it alone, and both in a PromQL string."""


def carried(leaf: str, text: str) -> tuple[Any, ...]:
    """The outcome of a policy, or of a policy under a class, that holds the text as this string."""
    base, place, _ = PLACES[leaf]
    changed = put(base, place, text)
    return outcome(changed, UNLIMITED) if leaf in IN_POLICY else outcome(POLICIES[0], changed)


@cache
def innocent(leaf: str) -> tuple[str, tuple[Mapping[str, Any], ...]] | None:
    """A harmless text this string may be, and the children with it; None where only figures and the like are allowed."""
    for text in INNOCENT:
        found = carried(leaf, text)
        if found[0] == "accepted":
            return text, found[1]
    return None


def check(leaf: str, text: str) -> None:
    """The text is refused, or all children are the policy's own and say what they say with an innocent text, this one in its place."""
    kind, found, *_ = carried(leaf, text)
    if kind == "refused":
        assert all(problem.path.startswith("spec") and 0 < len(problem.message) < 1000 for problem in found), found
        return
    stays_at_home(found)
    assert yaml_text.load_all(dump(found)) == list(found)
    calm = innocent(leaf)
    if leaf in TAKEN_APART:
        counted = [rule["expr"] for group in _rules(found) for rule in group["rules"] if "offset" in rule["expr"]]
        assert all(expr.count(f'namespace="{NAMESPACE}"') >= expr.count("last_over_time(") for expr in counted[:3])
    elif calm is not None and not _TAME.fullmatch(text):
        for before, after in zip(calm[1], found, strict=True):
            same_but(calm[0], text, before, after)


def _rules(manifests: tuple[Mapping[str, Any], ...]) -> list[Mapping[str, Any]]:
    return next(list(manifest["spec"]["groups"]) for manifest in manifests if manifest["kind"] == "PrometheusRule")


def stays_at_home(manifests: tuple[Mapping[str, Any], ...]) -> None:
    """Every child is of a known kind, in the policy's namespace, under its name; what it selects or routes to is the policy's own."""
    for manifest in manifests:
        kind, spec, metadata = manifest["kind"], manifest.get("spec", {}), manifest["metadata"]
        assert (kind, metadata["namespace"]) in {(known.kind, NAMESPACE) for known in KINDS}
        assert re.fullmatch(f"{NAME}(-[a-z]+)?", metadata["name"])
        selector = {
            "PeerAuthentication": lambda spec: spec["selector"]["matchLabels"],
            "AuthorizationPolicy": lambda spec: spec["selector"]["matchLabels"],
            "EnvoyFilter": lambda spec: spec["workloadSelector"]["labels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
            "Service": lambda spec: spec["selector"],
        }.get(kind)
        assert selector is None or selector(spec) in ({"app": NAME}, {"app": NAME, "version": "stable"}), (kind, selector(spec))
        for host in hosts(spec) if kind in ("VirtualService", "DestinationRule") else ():
            assert re.fullmatch(rf"{NAME}\.{NAMESPACE}\.svc\..*|.*\.example\.com", host), host
        for group in spec.get("groups", ()) if kind == "PrometheusRule" else ():
            for rule in group["rules"]:
                own = rule["labels"]["namespace" if "alert" in rule else "policy_namespace"]
                assert own == NAMESPACE


def hosts(spec: Any) -> Iterator[str]:
    """Every host a route or its subsets name, but the one a client is redirected to."""
    if isinstance(spec, Mapping):
        for key, value in spec.items():
            if key == "host":
                yield value
            elif key == "hosts":
                yield from value
            elif key not in ("redirect", "corsPolicy", "headers", "match"):
                yield from hosts(value)
    elif isinstance(spec, list):
        for item in spec:
            yield from hosts(item)


def same_but(innocent: str, text: str, before: Any, after: Any) -> None:
    """`after` is `before` with the text, in one of the ways to write it, where the innocent one stood; expressions only within literals."""
    if isinstance(before, Mapping):
        keys = {key.replace(innocent, text): key for key in before}
        assert set(keys) == set(after)
        for key, former in keys.items():
            same_but(innocent, text, before[former], after[key])
    elif isinstance(before, list):
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            same_but(innocent, text, one, other)
    elif before != after and before.startswith("{"):  # a dashboard
        same_but(innocent, text, json.loads(before), json.loads(after))
    elif before != after and not (_REVISION.fullmatch(before) and _REVISION.fullmatch(after)):
        # A plain text is compared whole: what looks like a literal in it may be the hostile one's own quotes.
        parts = [(before, after)]
        if _LITERAL.search(before):
            assert _LITERAL.sub("", before) == _LITERAL.sub("", after), (before, after)
            parts = list(zip(_LITERAL.split(before), _LITERAL.split(after), strict=True))
        assert all(new in {old.replace(way(innocent), way(text)) for way in _WAYS} for old, new in parts), (before, after)


@pytest.mark.parametrize("leaf", PLACES)
def test_a_hostile_string_is_refused_or_is_data(leaf: str) -> None:
    for text in HOSTILE:
        check(leaf, text)


@settings(max_examples=40)
@given(data=st.data())
def test_any_string_is_refused_or_is_data(data: st.DataObject) -> None:
    leaf = data.draw(st.sampled_from(sorted(PLACES)))
    schema = PLACES[leaf][2]
    fitting = st.from_regex(schema.get("pattern", ""), fullmatch=True).filter(lambda text: len(text) <= schema["maxLength"])
    text = data.draw(fitting | st.text(max_size=30) if "pattern" in schema else st.text(max_size=30))
    check(leaf, text)


def test_every_string_of_the_api_is_here() -> None:
    """But for those only a class's defaults have, which are the policies' own, and the free-form pod template, which has its own tests."""
    wanted = {leaf for leaf, schema in nodes(POLICY_SCHEMA) if schema.get("type") == "string" and "enum" not in schema}
    assert wanted <= set(IN_POLICY)
    in_class = {leaf for leaf, schema in nodes(CLASS_SCHEMA) if schema.get("type") == "string" and "enum" not in schema}
    assert {leaf for leaf in in_class if not leaf.startswith("defaults.")} <= set(IN_CLASS)


def nodes(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every leaf with its schema."""
    if "properties" in schema:
        for name, child in schema["properties"].items():
            yield from nodes(child, f"{path}.{name}" if path else name)
    elif schema.get("type") == "array":
        yield from nodes(schema["items"], f"{path}[]")
    elif "additionalProperties" in schema:
        yield f"{path}.*", schema["additionalProperties"]
    else:
        yield path, schema
