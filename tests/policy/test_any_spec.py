"""Specs drawn from the schema itself: whatever the API server would store is resolved or refused with its problems, never a crash.

`PERFPOLICY_EXAMPLES=3000 pytest tests/policy/test_any_spec.py` looks longer.
"""

import os
from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from perfpolicy.api.parse import dump
from perfpolicy.api.performance_class import parse_class
from perfpolicy.api.policy import parse_policy
from perfpolicy.api.schema import class_crd, policy_crd
from perfpolicy.errors import InvalidSpec, Problem
from perfpolicy.policy import layers, resolve
from perfpolicy.policy.antipatterns import antipatterns
from perfpolicy.policy.facts import Facts
from tests.api.objects import DEPLOYMENT, TARGET, a_class_object, a_policy_object
from tests.policy.support import a_raw_service, targeted

EXAMPLES = int(os.environ.get("PERFPOLICY_EXAMPLES", "15"))
_POD_KEYS = ["metadata", "spec", "labels", "annotations", "containers", "name", "resources", "limits", "cpu", "securityContext"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "x y"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_POD_KEYS), inner, max_size=3),
    max_leaves=6,
)


def from_schema(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values a structural schema admits (its CEL rules apart)."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return st.dictionaries(st.sampled_from(["metadata", "spec"]), JSON, max_size=2)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "string":
            text = st.from_regex(schema["pattern"]) if "pattern" in schema else st.text(st.characters(codec="ascii"), max_size=8)
            return text.filter(lambda value: len(value) <= schema["maxLength"] and not value.endswith("\n"))
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "array":
            return st.lists(from_schema(schema["items"]), min_size=schema.get("minItems", 0), max_size=2)
        case _ if "additionalProperties" in schema:
            keys, low = st.sampled_from(["app", "team", "kubernetes.io/name"]), schema.get("minProperties", 0)
            return st.dictionaries(keys, from_schema(schema["additionalProperties"]), min_size=low, max_size=2)
    required = schema.get("required", ())
    known = {name: from_schema(child) for name, child in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: known[name] for name in known if name in required}, optional={name: known[name] for name in known if name not in required}
    )


def _spec(crd: Mapping[str, Any]) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def _one_block(spec: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Specs with one optional block: with all of them drawn at once nearly every spec breaks some rule and nothing is resolved."""
    blocks = {name: child for name, child in spec["properties"].items() if name not in ("workload", "className")}
    return st.sampled_from(sorted(blocks)).flatmap(lambda name: st.fixed_dictionaries({name: from_schema(blocks[name])}))


POLICY = _spec(policy_crd())
DEPLOYMENTS = from_schema(POLICY["properties"]["workload"]["properties"]["deployment"]).map(lambda found: {"deployment": found})
POLICIES = st.builds(
    lambda workload, block: {"workload": workload, **block},
    st.just({"deployment": DEPLOYMENT}) | st.just(TARGET) | DEPLOYMENTS,
    _one_block(POLICY),
)
CLASSES = _one_block(_spec(class_crd()))
RELAXED = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
FACTS = (Facts(), targeted(), Facts(services={"a": a_raw_service("a")}, namespace_labels={"istio.io/dataplane-mode": "ambient"}))


@RELAXED
@given(spec=POLICIES, facts=st.sampled_from(FACTS))
@example(spec={"workload": {"deployment": {"image": "a", "replicas": 1, "ports": [{"name": "http", "port": 1}]}}}, facts=Facts())
def test_any_policy_is_resolved_or_refused(spec: dict[str, Any], facts: Facts) -> None:
    _resolve({**a_policy_object(), "spec": spec}, a_class_object(), facts)


@RELAXED
@given(spec=CLASSES)
def test_any_class_resolves_or_refuses_a_policy(spec: dict[str, Any]) -> None:
    _resolve(a_policy_object(), {**a_class_object(), "spec": spec}, Facts())


@RELAXED
@given(spec=POLICIES)
def test_what_is_parsed_is_written_back_as_it_was(spec: dict[str, Any]) -> None:
    try:
        policy = parse_policy({**a_policy_object(), "spec": spec})
    except InvalidSpec:
        return
    assert dump(policy.spec) == spec


def _resolve(policy: dict[str, Any], cls: dict[str, Any], facts: Facts) -> None:
    refused: tuple[Problem, ...] = ()
    try:
        parsed, parsed_class = parse_policy(policy), parse_class(cls)
        resolved = resolve.resolve(parsed, parsed_class, facts)
    except InvalidSpec as error:
        refused = error.problems
        event("refused")
    else:
        event("resolved")
        assert resolve.check(parsed, parsed_class, facts) == []
        assert layers.merge(parsed, parsed_class).origins
        assert isinstance(antipatterns(resolved), tuple)
        return
    assert refused
    assert all(problem.message for problem in refused)
