"""Raw objects become models: views of mappings are taken, types are not bent, status and foreign metadata are left alone."""

from types import MappingProxyType

import pytest

from perfpolicy.api.parse import dump
from perfpolicy.api.performance_class import parse_class
from perfpolicy.api.policy import parse_policy
from perfpolicy.errors import InvalidSpec
from tests.api.objects import a_class_object, a_policy_object


def test_views_of_mappings_and_tuples_are_taken() -> None:
    # kopf hands out read-only views.
    policy = a_policy_object({"traffic.hosts": ("a.com", "b.com")})
    view = MappingProxyType({**policy, "spec": MappingProxyType(policy["spec"])})
    assert parse_policy(view).spec.traffic is not None


def test_status_and_foreign_metadata_are_not_read() -> None:
    policy = a_policy_object()
    policy["metadata"] |= {
        "uid": "u",
        "generation": 7,
        "managedFields": [{"manager": "kubectl"}],
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    parsed = parse_policy({**policy, "status": {"conditions": "nonsense"}})
    assert (parsed.metadata.uid, parsed.metadata.generation) == ("u", 7)


@pytest.mark.parametrize(("path", "value"), [("service.port", "80"), ("service.port", 80.0), ("service.port", True), ("mode", 1)])
def test_types_are_not_bent(path: str, value: object) -> None:
    with pytest.raises(InvalidSpec):
        parse_policy(a_policy_object({path: value}))


def test_what_was_not_written_is_not_dumped() -> None:
    changes = {"traffic": {"retries": {}, "routes": [{"name": "a"}]}}
    assert dump(parse_policy(a_policy_object(changes)).spec)["traffic"] == changes["traffic"]


@pytest.mark.parametrize("spec", [None, [], "x"])
def test_a_spec_that_is_no_object_is_refused(spec: object) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_policy({**a_policy_object(), "spec": spec})
    assert refused.value.problems[0].path == "spec"


@pytest.mark.parametrize("missing", ["spec", "metadata"])
def test_a_missing_part_is_named(missing: str) -> None:
    policy = {key: value for key, value in a_policy_object().items() if key != missing}
    with pytest.raises(InvalidSpec, match=f"{missing}: required"):
        parse_policy(policy)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"defaults.className": "other"}, "spec.defaults.className"),
        ({"defaults.workload": {}}, "spec.defaults.workload"),
        ({"defaults.traffic.retries": {"mode": "Disabled", "attempts": 1}}, "spec.defaults.traffic.retries.mode"),
        ({"grants": [{"name": "a"}, {"name": "a"}]}, "spec.grants[1]"),
        ({"grants": [{"name": "a", "hosts": ["*"]}]}, "spec.grants[0].hosts[0]"),
        ({"metrics.authFile": "/etc/../shadow"}, "spec.metrics.authFile"),
        ({"metrics.address": "prometheus:9090"}, "spec.metrics.address"),
        ({"metrics.tenant": "a\nb"}, "spec.metrics.tenant"),
        ({"limits.minMtls": "Off"}, "spec.limits.minMtls"),
    ],
)
def test_a_mistake_in_a_class_is_refused(changes: dict[str, object], path: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_class(a_class_object(changes))
    assert [problem.path for problem in refused.value.problems] == [path]


@pytest.mark.parametrize("name", ["a.b", "a" * 64])
def test_a_class_that_no_policy_could_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidSpec, match="at most 63 characters and no dots"):
        parse_class(a_class_object(name=name))


def test_a_field_that_does_not_parse_hides_no_cross_field_rule() -> None:
    throughput = {"min": "9", "max": "1"}
    objective = {"name": "up", "sli": "Availability", "target": "100%", "windowDays": 30}
    with pytest.raises(InvalidSpec) as error:
        parse_policy(a_policy_object({"mode": "Enforced", "thresholds.throughput": throughput, "objectives": [objective]}))
    assert {p.path for p in error.value.problems} == {"spec.mode", "spec.thresholds.throughput", "spec.objectives[0].target"}
