"""Rules for the whole schema of both kinds, walked field by field: a new field that breaks one fails here."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import yaml

from perfpolicy.api import observability, schema
from perfpolicy.api.policy import PolicySettings
from perfpolicy.policy.layers import submodel
from perfpolicy.vocabulary import AlertName

ROOT = Path(__file__).resolve().parents[2]
CRDS = {"policy": schema.policy_crd(), "class": schema.class_crd()}


class Field(NamedTuple):
    """One node of a schema: its path (`policy.spec.traffic.routes[].name`), its schema, and the object it is in."""

    path: str
    node: dict[str, Any]
    parent: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.rsplit(".", 1)[-1]


def _walk(path: str, node: dict[str, Any], parent: dict[str, Any]) -> Iterator[Field]:
    yield Field(path, node, parent)
    for name, child in node.get("properties", {}).items():
        yield from _walk(f"{path}.{name}", child, node)
    if "items" in node:
        yield from _walk(f"{path}[]", node["items"], node)
    if "additionalProperties" in node:
        yield from _walk(f"{path}{{}}", node["additionalProperties"], node)


def _root(crd: dict[str, Any]) -> dict[str, Any]:
    version: dict[str, Any] = crd["spec"]["versions"][0]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


EVERYTHING = [
    field
    for name, crd in CRDS.items()
    for part in ("spec", "status")
    if part in _root(crd)["properties"]
    for field in _walk(f"{name}.{part}", _root(crd)["properties"][part], _root(crd))
]
WRITTEN_BY_PEOPLE = [field for field in EVERYTHING if ".spec" in field.path]
FIELDS = [field for field in EVERYTHING if not field.path.endswith(("[]", "{}"))]


def _wrong(fields: list[Field], right: Any) -> list[str]:
    return [field.path for field in fields if not right(field)]


def test_the_walk_reaches_the_deepest_fields() -> None:
    paths = {field.path for field in EVERYTHING}
    assert "policy.spec.traffic.routes[].headers.response.set[].value" in paths
    assert "class.spec.defaults.network.egress[].toCIDRs[].except[]" in paths
    assert "policy.status.objectives[].burnRates[].window" in paths
    assert len(paths) > 500


def test_every_field_has_a_description() -> None:
    assert _wrong(FIELDS, lambda field: len(field.node.get("description", "")) >= 5) == []


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "n", "true", "false"])
def test_no_key_or_enum_value_is_a_yaml_boolean(word: str) -> None:
    # "True" and "False" are what Kubernetes itself calls a condition's status; nobody types them.
    fields = [field for field in EVERYTHING if field.path != "policy.status.conditions[].status"]
    assert _wrong(fields, lambda field: field.name.lower() != word) == []
    assert _wrong(fields, lambda field: word not in [str(value).lower() for value in field.node.get("enum", ())]) == []


def test_every_key_and_enum_value_stays_text_in_yaml() -> None:
    def is_text(field: Field) -> bool:
        words = [field.name, *(value for value in field.node.get("enum", ()) if isinstance(value, str))]
        return all(isinstance(yaml.safe_load(word), str) for word in words if word and not word.endswith(("[]", "{}")))

    fields = [field for field in EVERYTHING if field.path != "policy.status.conditions[].status"]
    assert _wrong(fields, is_text) == []


def test_no_field_a_class_may_fill_has_a_schema_default() -> None:
    assert _wrong(WRITTEN_BY_PEOPLE, lambda field: "default" not in field.node) == []


def test_only_the_status_has_a_default_and_it_says_pending() -> None:
    assert [field.path for field in EVERYTHING if "default" in field.node] == ["policy.status"]
    conditions = _root(CRDS["policy"])["properties"]["status"]["default"]["conditions"]
    assert [(c["type"], c["status"], c["reason"]) for c in conditions] == [
        ("Accepted", "Unknown", "Pending"),
        ("Ready", "Unknown", "Pending"),
    ]


def test_every_text_is_bounded() -> None:
    texts = [field for field in EVERYTHING if field.node.get("type") == "string" and "enum" not in field.node]
    assert _wrong(texts, lambda field: "maxLength" in field.node or field.node.get("format") == "date-time") == []


def test_every_list_is_bounded() -> None:
    assert _wrong([f for f in EVERYTHING if f.node.get("type") == "array"], lambda field: field.node["maxItems"] <= 256) == []


def test_every_map_is_bounded() -> None:
    maps = [field for field in EVERYTHING if field.node.get("type") == "object" and "properties" not in field.node]
    assert _wrong(maps, lambda field: "maxProperties" in field.node) == []
    assert len(maps) > 5


def test_every_integer_people_write_is_bounded() -> None:
    integers = [f for f in WRITTEN_BY_PEOPLE if f.node.get("type") == "integer" and "enum" not in f.node]
    assert _wrong(integers, lambda field: {"minimum", "maximum"} <= set(field.node)) == []


def test_there_are_no_floats_and_no_booleans() -> None:
    assert _wrong(EVERYTHING, lambda field: field.node.get("type") in ("string", "integer", "array", "object")) == []


def test_enum_values_are_camel_case_or_words_of_http_and_istio() -> None:
    foreign = re.compile(r"[A-Z]+|apps|argoproj\.io|301|302|303|307|308|5xx|[a-z]+(-[a-z0-9]+)*")
    of_envoy = ("retryOn[]",)
    ours = re.compile(r"[A-Z][A-Za-z0-9]*")
    for field in EVERYTHING:
        for value in field.node.get("enum", ()):
            pattern = foreign if field.path.endswith((*of_envoy, "targetRef.group", "redirect.code")) else ours
            assert pattern.fullmatch(str(value)), f"{field.path}: {value}"


def test_every_list_says_how_it_merges() -> None:
    lists = [field for field in EVERYTHING if field.node.get("type") == "array"]
    assert _wrong(lists, lambda field: field.node.get("x-kubernetes-list-type") in ("map", "set", "atomic")) == []


def test_lists_of_named_objects_merge_by_name() -> None:
    named = [f for f in WRITTEN_BY_PEOPLE if "name" in f.node.get("items", {}).get("required", ())]
    assert _wrong(named, lambda field: "name" in field.node.get("x-kubernetes-list-map-keys", ())) == []
    assert len(named) > 10


def test_keys_of_merging_lists_are_required() -> None:
    maps = [field for field in EVERYTHING if field.node.get("x-kubernetes-list-type") == "map"]
    assert _wrong(maps, lambda f: set(f.node["x-kubernetes-list-map-keys"]) <= set(f.node["items"].get("required", ()))) == []


def test_unknown_fields_are_kept_in_the_pod_template_only() -> None:
    kept = [field.path for field in EVERYTHING if field.node.get("x-kubernetes-preserve-unknown-fields")]
    assert kept == ["policy.spec.workload.deployment.template"]


def test_every_rule_says_what_is_allowed() -> None:
    rules = [rule for field in EVERYTHING for rule in field.node.get("x-kubernetes-validations", ())]
    rules += [rule for crd in CRDS.values() for rule in _root(crd)["x-kubernetes-validations"]]
    assert all(len(rule["message"]) > 15 and "failed rule" not in rule["message"] for rule in rules)
    assert len(rules) > 40


def test_field_paths_of_rules_exist() -> None:
    for field in EVERYTHING:
        for rule in field.node.get("x-kubernetes-validations", ()):
            if "fieldPath" in rule:
                assert rule["fieldPath"].lstrip(".") in field.node["properties"], f"{field.path}: {rule}"


def test_durations_are_those_of_the_gateway_api() -> None:
    durations = [f for f in WRITTEN_BY_PEOPLE if "(h|m|s|ms)" in f.node.get("pattern", "")]
    gep_2257 = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
    assert len(durations) > 20
    for field in durations:
        pattern = re.compile(field.node["pattern"])
        assert all(pattern.search(good) and gep_2257.fullmatch(good) for good in ("500ms", "30s", "1h30m", "99999h")), field.path
        assert not any(pattern.search(bad) for bad in ("30", "1d", "1.5s", "s", "", "-1s", " 1s", "100000s")), field.path


# Blocks that cause an object or a setting of their own: without a way to say no, a class could not be refused.
SWITCHED = (
    "thresholds.errorRate", "thresholds.throughput", "thresholds.resources", "traffic.retries", "traffic.loadBalancer",
    "traffic.rateLimit.local", "traffic.rateLimit.global",
    "traffic.connectionPool", "traffic.circuitBreaker", "network", "disruptionBudget", "observability.alerts", "observability.scrape",
    "observability.tracing", "observability.accessLogs",
)  # fmt: skip


# What a class can offer as well: its figures are used where a policy names the block.
OFFERED = {
    "traffic.rateLimit": "Enabled", "traffic.concurrency": "Fixed", "traffic.responseHeaders": "Enabled", "traffic.compression": "Enabled",
    "scaling": "Enabled",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["policy.spec", "class.spec.defaults"])
@pytest.mark.parametrize("block", OFFERED)
def test_blocks_a_class_may_offer_can_be_disabled(kind: str, block: str) -> None:
    (mode,) = [field for field in EVERYTHING if field.path == f"{kind}.{block}.mode"]
    assert mode.node["enum"][0] == OFFERED[block]
    assert mode.node["enum"][-2:] == ["Disabled", "Offered"]


@pytest.mark.parametrize("kind", ["policy.spec", "class.spec.defaults"])
@pytest.mark.parametrize("block", SWITCHED)
def test_blocks_a_class_may_fill_can_be_disabled(kind: str, block: str) -> None:
    (mode,) = [field for field in EVERYTHING if field.path == f"{kind}.{block}.mode"]
    assert mode.node["enum"] == ["Enabled", "Disabled"]


def test_a_class_may_fill_every_setting_but_class_name_and_workload() -> None:
    ours = {f.path.removeprefix("policy.spec") for f in EVERYTHING if f.path.startswith("policy.spec.")}
    theirs = {f.path.removeprefix("class.spec.defaults") for f in EVERYTHING if f.path.startswith("class.spec.defaults.")}
    assert {path for path in ours - theirs if not path.startswith((".className", ".workload"))} == set()


def test_no_field_of_an_object_a_class_may_fill_is_required() -> None:
    # Policy and class each give some of them; whether the sum is complete is judged after merging.
    def requirements(model: type[Any], path: str) -> Iterator[str]:
        for info in model.model_fields.values():
            child = submodel(info.annotation)
            if info.is_required() and not model.atomic:
                yield f"{path}.{info.alias}"
            if child is not None:
                yield from requirements(child, f"{path}.{info.alias}")

    assert list(requirements(PolicySettings, "spec")) == []


def test_columns_and_names() -> None:
    names, version = CRDS["policy"]["spec"]["names"], CRDS["policy"]["spec"]["versions"][0]
    columns = version["additionalPrinterColumns"]
    assert [c["name"] for c in columns if not c.get("priority")] == ["Ready", "Met", "P95", "Errors", "Budget", "Health", "Severity", "Age"]
    assert [c["name"] for c in columns if c.get("priority")] == ["Class", "Workload", "RPS", "Reason"]
    assert names["shortNames"] == ["pp", "perfpolicy"]
    assert CRDS["class"]["spec"]["names"]["shortNames"] == ["perfclass"]
    assert not any("categories" in crd["spec"]["names"] for crd in CRDS.values())
    assert version["subresources"] == {"status": {}}


def test_columns_read_fields_that_exist() -> None:
    paths = {field.path for field in EVERYTHING}
    for column in CRDS["policy"]["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = re.sub(r"\[\?.*?\]", "[]", column["jsonPath"])
        assert path.startswith(".metadata") or f"policy{path}" in paths, path


def test_the_alerts_one_can_disable_are_those_that_are_written() -> None:
    assert set(get_args(observability.Alert)) == {name.value for name in AlertName}


def test_generated_files_are_up_to_date() -> None:
    for path, text in schema.generate(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is out of date: run make generate"


def test_the_reference_names_every_field() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert _wrong([f for f in FIELDS if "." in f.path], lambda field: f"`{field.name}`" in text or f"`.{field.name}`" in text) == []
