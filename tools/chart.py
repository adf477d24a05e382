"""The charts' generated files: CRDs and built-in classes out of the package, values.schema.json and README out of values.yaml's comments.

In values.yaml the comment above a key is its description, and lines of it that begin with `@schema` are JSON schema for its value, as YAML;
what they leave open is read from the default value. A `$ref` of `k8s:api.core.v1.Volume` is the API server's own definition of that type,
one of `perfpolicy:Class` or `perfpolicy:Settings` ours. Objects are closed: a wrong key fails `helm install` with its path.

Why not helm-docs and a schema plugin: they are programs in Go, and `make verify` needs nothing but the Python environment.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml

from perfpolicy import yaml_text
from perfpolicy.api import schema as crd_schema
from perfpolicy.policy.builtin import builtin_classes_text
from perfpolicy.promql import names, panels
from perfpolicy.render import dashboard
from perfpolicy.settings import Settings
from perfpolicy.vocabulary import DEFAULT_CLASS_ANNOTATION

Schema = dict[str, Any]

CHARTS: Final = Path("charts")
MAIN: Final = CHARTS / "perfpolicy"
CRDS: Final = CHARTS / "perfpolicy-crds"
OF_THE_CHART: Final = frozenset(
    {"namespaces", "kubeconfig", "health_port", "log_format", "log_level", "lease", "lease_namespace", "class_file"}
)
"""Settings the chart makes out of values of their own."""

_K8S: Final = "io.k8s."
_KEPT: Final = frozenset({
    "$ref", "additionalProperties", "anyOf", "enum", "exclusiveMaximum", "exclusiveMinimum", "items", "maxItems", "maxLength",
    "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum", "oneOf", "pattern", "properties", "required", "type",
    "uniqueItems",
})  # fmt: skip
_TYPES: Final = {"str": "string", "bool": "boolean", "int": "integer", "float": "number", "map": "object", "seq": "array"}
_CLASSES: Final = re.compile(r"(?<=^# classes:begin)(?P<note>[^\n]*\n).*?(?=^# classes:end$)", re.MULTILINE | re.DOTALL)
_TABLE: Final = re.compile(r"(?<=<!-- values:begin -->\n).*?(?=<!-- values:end -->)", re.DOTALL)


@dataclass(frozen=True)
class Value:
    """A key of values.yaml. `inner` is empty where its schema is told by the comment."""

    path: tuple[str, ...]
    description: str
    schema: Schema
    default: Any
    inner: tuple["Value", ...]


def generate(root: Path) -> dict[Path, str]:
    """{path relative to the root: text}. Raises ValueError for a value without a comment, or one whose schema cannot be known."""
    values = with_classes((root / MAIN / "values.yaml").read_text())
    parsed = read(values)
    crds = {CRDS / "files" / name: _kept(text) for name, text in crd_schema.crds()}
    return {
        **crds,
        CRDS / "values.schema.json": _json(_closed({}) | {"$schema": _DRAFT}),
        MAIN / "values.yaml": values,
        MAIN / "values.schema.json": _json(values_schema(parsed)),
        MAIN / "files/policies-dashboard.json": _json(overview()),
        MAIN / "README.md": _TABLE.sub(lambda _: table(parsed), (root / MAIN / "README.md").read_text()),
    }


def overview() -> dict[str, Any]:
    """The dashboard over all policies."""
    namespaces = dashboard.regex_variable("namespace", "Namespace", f"label_values({names.REVISION}, {names.NAMESPACE})")
    links = [dashboard.by_tag("Policies", dashboard.TAG)]
    return dashboard.dashboard("perfpolicy-policies", "perfpolicy policies", panels.overview(), variables=[namespaces], links=links)


def _kept(crd: str) -> str:
    """A CRD that Helm upgrades and never deletes: with it every policy would go."""
    header, _, body = crd.partition("\n")
    manifest = yaml_text.load(body)
    manifest["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    return f"{header}\n{yaml_text.dump(manifest)}"


def with_classes(values: str) -> str:
    """values.yaml with the built-in classes between its markers."""
    classes = {}
    for document in yaml_text.load_all(builtin_classes_text()):
        metadata = document["metadata"]
        default = (metadata.get("annotations") or {}).get(DEFAULT_CLASS_ANNOTATION) == "true"
        classes[metadata["name"]] = {**({"default": True} if default else {}), "spec": document["spec"]}
    return _CLASSES.sub(lambda found: found["note"] + yaml_text.dump({"classes": classes}), values)


def read(values: str) -> tuple[Value, ...]:
    """The keys of values.yaml with what their comments say."""
    node = yaml.compose(values, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("values.yaml holds no object")
    return tuple(_read(node, (), values.splitlines(), yaml_text.load(values)))


def _read(node: yaml.MappingNode, path: tuple[str, ...], lines: list[str], defaults: Mapping[str, Any]) -> Iterator[Value]:
    for key, child in node.value:
        here, default = (*path, key.value), defaults[key.value]
        description, told = _comment(lines, key.start_mark.line)
        nested = isinstance(child, yaml.MappingNode) and not told
        inner = tuple(_read(child, here, lines, default)) if nested else ()
        if not (inner or description):
            raise ValueError(f"{'.'.join(here)}: no comment")
        if not (inner or told or isinstance(child, yaml.ScalarNode)):
            raise ValueError(f"{'.'.join(here)}: say with @schema what it may hold")
        type_ = {} if "$ref" in told else {"type": _TYPES[child.tag.rpartition(":")[2]]}
        yield Value(here, description, type_ | told, default, inner)


def _comment(lines: list[str], line: int) -> tuple[str, Schema]:
    """Description and schema in the comment that ends above `line`."""
    start = line
    while start > 0 and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    said = [text.strip().removeprefix("#").strip() for text in lines[start:line]]
    told: Schema = {}
    for text in said:
        if text.startswith("@schema "):
            told |= yaml.safe_load(text.removeprefix("@schema "))
    return " ".join(text for text in said if not text.startswith(("@schema ", "classes:"))), told


_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
"""What every version of Helm 3 and 4 understands."""


def values_schema(values: tuple[Value, ...]) -> Schema:
    """JSON schema of values.yaml, with the definitions it refers to."""
    definitions: dict[str, Schema] = {}
    body = _closed({value.path[-1]: _schema(value, definitions) for value in values})
    return {"$schema": _DRAFT, **body, "definitions": dict(sorted(definitions.items()))}


def _closed(properties: Schema) -> Schema:
    of_helm = {"global": {"type": "object", "description": "Set by Helm where this chart is a dependency of another; not read."}}
    return {"type": "object", "properties": {**properties, **of_helm}, "additionalProperties": False}


def _schema(value: Value, definitions: dict[str, Schema]) -> Schema:
    described = {"description": value.description} if value.description else {}
    if value.inner:
        inner = {child.path[-1]: _schema(child, definitions) for child in value.inner}
        return {**described, "type": "object", "properties": inner, "additionalProperties": False}
    resolved = _resolved(value.schema, definitions)
    # Draft 7 reads nothing beside a $ref.
    return {**described, **({"allOf": [resolved]} if "$ref" in resolved else resolved)}


def _resolved(node: Any, definitions: dict[str, Schema]) -> Any:
    """`node` with its references pointing into `definitions`, which is filled with what they mean."""
    if isinstance(node, list):
        return [_resolved(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"]
        if name not in definitions:
            definitions[name] = {}  # some types hold themselves
            definitions[name] = _resolved(_definition(name), definitions)
        return {"$ref": f"#/definitions/{name}"}
    return {key: _resolved(item, definitions) for key, item in node.items()}


def _definition(name: str) -> Schema:
    source, _, local = name.partition(":")
    if source == "k8s":
        return _plain(_kubernetes()[f"{_K8S}{local}"])
    if local == "Class":
        version = crd_schema.class_crd()["spec"]["versions"][0]
        spec = _plain(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
        return {"type": "object", "properties": {"default": {"type": "boolean"}, "spec": spec}, "additionalProperties": False}
    if local == "Settings":
        raw = Settings.model_json_schema()
        offered = {name: field for name, field in raw["properties"].items() if name not in OF_THE_CHART}
        return _plain({"type": "object", "properties": offered})
    raise ValueError(f"@schema refers to {name!r}, which is not known")


@cache
def _kubernetes() -> Mapping[str, Schema]:
    newest = f"v{kubernetes_validate.latest_version()}-local-strict"
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / newest
    definitions: Mapping[str, Schema] = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return definitions


def _plain(node: Schema) -> Schema:
    """A Kubernetes or pydantic schema as JSON schema: closed, and without descriptions, which would be ten times the rest."""
    out: Schema = {key: node[key] for key in sorted(node) if key in _KEPT}
    if "$ref" in out:
        return {"$ref": f"k8s:{out['$ref'].rpartition('/')[2].removeprefix(_K8S)}"}
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _plain(out[key])
    for key in ("anyOf", "oneOf"):
        if key in out:
            out[key] = [_plain(option) for option in out[key]]
    if "properties" in out:
        out["properties"] = {name: _plain(child) for name, child in out["properties"].items()}
        out.setdefault("additionalProperties", False)
    return out


def table(values: tuple[Value, ...]) -> str:
    rows = (f"| `{'.'.join(value.path)}` | {_shown(value)} | {value.description} |\n" for value in _flat(values) if value.description)
    return "| value | default | meaning |\n|---|---|---|\n" + "".join(rows)


def _flat(values: tuple[Value, ...]) -> Iterator[Value]:
    for value in values:
        yield value
        yield from _flat(value.inner)


def _shown(value: Value) -> str:
    if value.inner or value.default == "":
        return ""
    text = json.dumps(value.default)
    return f"`{text}`" if len(text) <= 60 else "see values.yaml"


def _json(document: Schema) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
