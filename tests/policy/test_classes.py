"""Which class a policy gets, whom a class admits, what it grants."""

import pytest

from perfpolicy.api.performance_class import PerformanceClass
from perfpolicy.api.policy import parse_policy
from perfpolicy.errors import InvalidSpec
from perfpolicy.policy.builtin import builtin_classes
from perfpolicy.policy.classes import default_classes, granted, select_class
from perfpolicy.policy.facts import Facts
from perfpolicy.vocabulary import DEFAULT_CLASS_ANNOTATION, Reason
from tests.api.objects import a_policy_object
from tests.policy.support import a_class, problems

MARK = {DEFAULT_CLASS_ANNOTATION: "true"}


def _default(name: str, created: str = "2026-01-01T00:00:00Z") -> PerformanceClass:
    return a_class(name=name, annotations=MARK, creationTimestamp=created)


def test_the_named_class_is_used() -> None:
    policy = parse_policy(a_policy_object({"className": "b"}))
    assert select_class(policy, [_default("a"), a_class(name="b")]).metadata.name == "b"


def test_a_class_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InvalidSpec) as refused:
        select_class(parse_policy(a_policy_object({"className": "c"})), [a_class(name="b"), a_class(name="a")])
    (problem,) = refused.value.problems
    assert (problem.path, problem.reason) == ("spec.className", Reason.CLASS_NOT_FOUND)
    assert "there is: a, b" in problem.message


def test_the_marked_class_is_the_default() -> None:
    assert select_class(parse_policy(a_policy_object()), [a_class(name="a"), _default("b")]).metadata.name == "b"


def test_the_newest_of_several_defaults_wins_and_all_are_known() -> None:
    old, new = _default("a", "2026-01-01T00:00:00Z"), _default("b", "2026-02-01T00:00:00Z")
    assert select_class(parse_policy(a_policy_object()), [old, new]).metadata.name == "b"
    assert [cls.metadata.name for cls in default_classes([new, a_class(name="c"), old])] == ["b", "a"]


def test_without_a_default_a_class_must_be_named() -> None:
    with pytest.raises(InvalidSpec, match=r"none is marked .*; name one of: a") as refused:
        select_class(parse_policy(a_policy_object()), [a_class(name="a")])
    assert refused.value.problems[0].reason is Reason.CLASS_NOT_FOUND


@pytest.mark.parametrize(
    ("allowed", "labels", "admitted"),
    [
        (None, {}, True),
        ({"names": ["shops"]}, {}, True),
        ({"names": ["banks"]}, {}, False),
        ({"selector": {"matchLabels": {"env": "prod"}}}, {"env": "prod", "team": "a"}, True),
        ({"selector": {"matchLabels": {"env": "prod"}}}, {"env": "test"}, False),
        ({"names": ["shops"], "selector": {"matchLabels": {"env": "prod"}}}, {}, True),
        ({}, {}, False),
    ],
)
def test_a_class_admits_namespaces_by_name_or_label(allowed: object, labels: dict[str, str], *, admitted: bool) -> None:
    found = problems(cls={"allowedNamespaces": allowed}, facts=Facts(namespace_labels=labels))
    assert [problem.reason for problem in found] == ([] if admitted else [Reason.CLASS_NOT_PERMITTED])


@pytest.mark.parametrize(
    ("pattern", "host", "covered"),
    [
        ("api.example.com", "api.example.com", True),
        ("api.example.com", "www.api.example.com", False),
        ("*.example.com", "api.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("*.example.com", "*.example.com", True),
        ("*.example.com", "*.api.example.com", True),
        ("*.api.example.com", "*.example.com", False),
        ("api.example.com", "*.example.com", False),
    ],
)
def test_a_wildcard_grants_hosts_below_only(pattern: str, host: str, *, covered: bool) -> None:
    cls = a_class({"grants": [{"name": "hosts", "hosts": [pattern]}]})
    assert granted(cls, "shops", {}).host(host) is covered


def test_grants_of_one_namespace_add_up_and_those_of_others_do_not() -> None:
    grants = [
        {"name": "a", "hosts": ["a.com"]},
        {"name": "b", "hosts": ["b.com"], "namespaces": {"names": ["shops"]}},
        {"name": "c", "hosts": ["c.com"], "namespaces": {"names": ["banks"]}},
    ]
    assert granted(a_class({"grants": grants}), "shops", {}).hosts == ["a.com", "b.com"]


def test_workload_creation_is_denied_unless_granted() -> None:
    assert [p.reason for p in problems(cls={"grants": None})] == [Reason.NOT_GRANTED]
    assert problems(cls={"grants": [{"name": "a", "workloadCreation": "Allowed"}]}) == []
    assert [p.path for p in problems(cls={"grants": [{"name": "a", "workloadCreation": "Denied"}]})] == ["spec.workload.deployment"]


def test_the_built_in_classes_are_the_four_environments_and_production_is_default() -> None:
    classes = {cls.metadata.name: cls for cls in builtin_classes()}
    assert set(classes) == {"development", "testing", "staging", "production"}
    assert [cls.metadata.name for cls in default_classes(classes.values())] == ["production"]


@pytest.mark.parametrize("name", ["policy_uid", "namespace", "le", "window"])
def test_a_matcher_on_a_label_the_rules_set_is_refused(name: str) -> None:
    with pytest.raises(InvalidSpec, match="any name but") as raised:
        a_class({"metrics.matchers": [{"name": "cluster", "value": "a"}, {"name": name, "value": "a"}]})
    assert [problem.path for problem in raised.value.problems] == ["spec.metrics.matchers"]
