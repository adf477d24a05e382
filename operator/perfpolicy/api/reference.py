"""docs/api.md from the CustomResourceDefinitions: a table for every object of the two kinds, with its rules. Pure text."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from perfpolicy.api.base import POSITIVE_DURATION_PATTERN, POSITIVE_SECONDS_PATTERN, SECONDS_PATTERN
from perfpolicy.units import DECIMAL_PATTERN, DURATION_PATTERN, PERCENT_PATTERN, QUANTITY_PATTERN

_FORMS: Final = {
    DURATION_PATTERN: "duration",
    POSITIVE_DURATION_PATTERN: "duration above 0",
    SECONDS_PATTERN: "duration in seconds",
    POSITIVE_SECONDS_PATTERN: "duration in seconds, above 0",
    PERCENT_PATTERN: "percentage",
    DECIMAL_PATTERN: "decimal number, as text",
    QUANTITY_PATTERN: "quantity",
}
_INTRODUCTION: Final = """# API reference

<!-- Generated from operator/perfpolicy/api by `make generate`; do not edit. -->

Group `perfpolicy.io`, version `v1alpha1`. Two kinds, split by who writes them, as Ingress and IngressClass are:
[PerformancePolicy](#performancepolicy) is a team's promise for one workload of its namespace, [PerformanceClass](#performanceclass) is the
admin's side. `kubectl explain performancepolicy.spec.traffic` shows the same descriptions.

A setting comes from the policy, else from `defaults` of its class, else from a built-in default ("Left out: …" below). Objects merge field
by field, lists replace; `mode: Disabled` says that a block is not wanted although the class fills it. `perfpolicy render --show-origin`
names where each value comes from. A **duration** is one to four parts such as `500ms`, `30s`, `1h30m`; a **percentage** is text such as
`99.9%`; a **quantity** is Kubernetes' own, such as `250m` or `512Mi`. Texts that look like numbers need quotes in YAML.
"""
_SHARED: Final = ".spec.defaults"


def reference(*crds: Mapping[str, Any]) -> str:
    """The reference of the kinds, in Markdown."""
    return _INTRODUCTION + "".join(line for crd in crds for line in _kind(crd))


def _kind(crd: Mapping[str, Any]) -> Iterator[str]:
    spec = crd["spec"]
    schema = spec["versions"][0]["schema"]["openAPIV3Schema"]
    scope = "one per cluster and name" if spec["scope"] == "Cluster" else "in a namespace"
    yield f"\n## {spec['names']['kind']}\n\n{schema['description']}\n\n"
    yield f"Short names: {', '.join(f'`{name}`' for name in spec['names']['shortNames'])}. Lives {scope}.\n"
    yield from _rules(schema)
    for part in ("spec", "status"):
        if part in schema["properties"]:
            yield from _object(f".{part}", schema["properties"][part])


def _object(path: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n### `{path}`\n\n{schema.get('description', '')}\n"
    if path == _SHARED:
        yield "\nThe fields of [PerformancePolicy.spec](#spec) without `className` and `workload`.\n"
        return
    yield "\n| field | type | meaning |\n|---|---|---|\n"
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        mark = " **Required.**" if name in required else ""
        yield f"| `{name}` | {_type(field)} | {_cell(field.get('description', ''))}{mark} |\n"
    yield from _rules(schema)
    for name, field in schema["properties"].items():
        inner, suffix = (field["items"], "[]") if field["type"] == "array" else (field, "")
        if "properties" in inner:
            yield from _object(f"{path}.{name}{suffix}", inner)


def _rules(schema: Mapping[str, Any]) -> Iterator[str]:
    rules = schema.get("x-kubernetes-validations", ())
    if rules:
        yield "\nRules:\n\n"
    for rule in rules:
        yield f"- {rule['message']}\n"


def _type(field: Mapping[str, Any]) -> str:
    if field["type"] == "array":
        return f"list of {_type(field['items'])}, at most {field['maxItems']}"
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "object":
        return "map of texts" if "additionalProperties" in field else "object"
    if field["type"] == "integer":
        return f"integer{_range(field)}"
    return _FORMS.get(field.get("pattern", ""), "time" if field.get("format") == "date-time" else "text")


def _range(field: Mapping[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if high is None:
        return "" if low is None else f", at least {low}"
    return f", {low} to {high}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
