"""Wire models to CustomResourceDefinitions: the only source of crds/ and docs/api.md.

Takes pydantic's JSON schema and rewrites it into the subset Kubernetes calls structural: no references, no null unions, no patterns on keys
(they become CEL). Nothing is written here; `generate` returns file contents and `python -m perfpolicy.api.schema ROOT` writes them.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from perfpolicy.api.base import Wire
from perfpolicy.api.performance_class import ClassSpec, PerformanceClass
from perfpolicy.api.policy import PerformancePolicy, PolicySpec
from perfpolicy.api.reference import reference
from perfpolicy.api.status import Status
from perfpolicy.vocabulary import (
    CLASS_KIND,
    CLASS_PLURAL,
    GROUP,
    POLICY_KIND,
    POLICY_PLURAL,
    VERSION,
    ConditionStatus,
    ConditionType,
    Reason,
)
from perfpolicy.yaml_text import dump

Schema = dict[str, Any]

_KEPT = (
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
)
_DROPPED = frozenset({"title", "default", "additionalProperties", "propertyNames", "patternProperties", "anyOf", "$ref", "$defs", "const"})
_READ = frozenset({"description", "properties", "items"})


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of a wire model. ValueError names a keyword it cannot express."""
    raw = model.model_json_schema(by_alias=True)
    return _rewrite(raw, raw.get("$defs", {}))


def _rewrite(raw: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    node = _resolved(raw, definitions)
    if unknown := set(node) - set(_KEPT) - _DROPPED - _READ:
        raise ValueError(f"no structural form for {sorted(unknown)}")
    out: Schema = {"description": " ".join(node["description"].split())} if "description" in node else {}
    out |= {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        out |= {"type": "string", "enum": [node["const"]]}
    if "properties" in node:
        out["properties"] = {name: _rewrite(child, definitions) for name, child in node["properties"].items()}
    if "items" in node:
        out["items"] = _rewrite(node["items"], definitions)
    if node.get("type") == "object" and "properties" not in node and not node.get("x-kubernetes-preserve-unknown-fields"):
        out |= _map(node, definitions)
    return out


def _resolved(raw: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A node with its reference followed and its `| None` taken away; a field's own description wins over its type's."""
    node = dict(raw)
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            target = definitions[node.pop("$ref").rsplit("/", 1)[1]]
        else:
            options = [option for option in node.pop("anyOf") if option.get("type") != "null"]
            if len(options) != 1:
                raise ValueError(f"no structural form for a union of {len(options)} types")
            target = options[0]
        node = {**target, **node}
    return node


def _map(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """A map of texts; what its keys must look like becomes CEL."""
    ((pattern, values),) = node["patternProperties"].items()
    limit = node.get("propertyNames", {}).get("maxLength", 253)
    quoted = pattern.replace("\\", "\\\\")
    rule = {
        "rule": f"self.all(key, key.size() <= {limit} && key.matches('{quoted}'))",
        "message": f"keys must have the form {pattern} and at most {limit} characters",
    }
    return {"additionalProperties": _rewrite(values, definitions), "x-kubernetes-validations": [rule]}


def policy_crd() -> Schema:
    """The CustomResourceDefinition of PerformancePolicy."""
    columns = [
        _column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether everything is in place."),
        _column("Met", "string", ".status.summary.met", "Thresholds met of all."),
        _column("P95", "string", ".status.summary.p95", "95th percentile of the latency."),
        _column("Errors", "string", ".status.summary.errors", "Share of bad requests."),
        _column("Budget", "string", ".status.summary.budget", "Error budget left; ~ where the window is not covered."),
        _column("Health", "string", ".status.summary.health", "Health score, 0 to 100."),
        _column("Severity", "string", ".status.summary.severity", "Degradation against target."),
        _column("Age", "date", ".metadata.creationTimestamp", "Time since creation."),
        _column("Class", "string", ".status.class.name", "Class in use.", wide=True),
        _column("Workload", "string", ".status.summary.workload", "Workload the policy speaks about.", wide=True),
        _column("RPS", "string", ".status.summary.rps", "Requests per second.", wide=True),
        _column("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Reason of Ready.", wide=True),
    ]
    schema = _kind_schema(PerformancePolicy, PolicySpec)
    schema["properties"]["status"] = _status()
    return _crd(POLICY_KIND, POLICY_PLURAL, ["pp", "perfpolicy"], "Namespaced", schema, columns, status=True)


def class_crd() -> Schema:
    """The CustomResourceDefinition of PerformanceClass."""
    columns = [
        _column(
            "Default", "string", f".metadata.annotations.{GROUP.replace('.', chr(92) + '.')}/is-default-class", "Used without className."
        ),
        _column("Metrics", "string", ".spec.metrics.address", "Address of the metrics source."),
        _column("Age", "date", ".metadata.creationTimestamp", "Time since creation."),
    ]
    return _crd(CLASS_KIND, CLASS_PLURAL, ["perfclass"], "Cluster", _kind_schema(PerformanceClass, ClassSpec), columns, status=False)


def _kind_schema(model: type[Wire], spec: type[Wire]) -> Schema:
    """The schema of a whole object; metadata is the API server's own."""
    rules = [rule.to_schema() for rule in model.all_rules()]
    return {
        "description": " ".join((model.__doc__ or "").split()),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the schema.", "maxLength": 64},
            "kind": {"type": "string", "description": "Kind of the object.", "maxLength": 64},
            "metadata": {"type": "object"},
            "spec": structural(spec),
        },
        "x-kubernetes-validations": rules,
    }


def _status() -> Schema:
    """The status, which says Pending until an operator has seen the policy."""
    pending = [
        {
            "type": kind.value,
            "status": ConditionStatus.UNKNOWN.value,
            "reason": Reason.PENDING.value,
            "message": "Waiting for the operator",
            "observedGeneration": 0,
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }
        for kind in (ConditionType.ACCEPTED, ConditionType.READY)
    ]
    return {**structural(Status), "default": {"conditions": pending}}


def _column(name: str, kind: str, path: str, description: str, *, wide: bool = False) -> Schema:
    return {"name": name, "type": kind, "jsonPath": path, "description": description, **({"priority": 1} if wide else {})}


def _crd(kind: str, plural: str, short: list[str], scope: str, schema: Schema, columns: list[Schema], *, status: bool) -> Schema:
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
        **({"subresources": {"status": {}}} if status else {}),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower(), "shortNames": short},
            "versions": [version],
        },
    }


_HEADER = "# Generated from operator/perfpolicy/api by `make generate`; do not edit.\n"


def crds() -> Iterator[tuple[str, str]]:
    """File name and YAML of each CustomResourceDefinition."""
    makers: tuple[Callable[[], Schema], ...] = (policy_crd, class_crd)
    for make in makers:
        crd = make()
        yield f"{crd['spec']['names']['plural']}.yaml", _HEADER + dump(crd)


def generate(root: Path) -> dict[Path, str]:
    """Contents of the files this module is the source of, by path below the repository's `root`."""
    files = {root / "crds" / name: text for name, text in crds()}
    return {**files, root / "docs" / "api.md": reference(policy_crd(), class_crd())}


def main() -> None:
    """Writes the generated files below the folder given as the only argument (default: the working directory)."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    for path, text in generate(root).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
