"""Every mistake of the table is refused without a cluster, at the field it was made in, with a message that says what is allowed."""

from collections.abc import Iterator
from typing import get_args

import pytest

from perfpolicy.api.base import Wire
from perfpolicy.api.policy import PerformancePolicy, parse_policy
from perfpolicy.errors import InvalidSpec
from tests.api.bad_input import CASES, BadPolicy
from tests.api.objects import a_policy_object


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_is_refused_with_path_and_message(case: BadPolicy) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_policy(a_policy_object(case.changes, name=case.name))
    at_path = [problem.message for problem in refused.value.problems if problem.path == case.path]
    assert any(case.message in message for message in at_path), refused.value.problems


def test_titles_are_unique() -> None:
    assert len({case.title for case in CASES}) == len(CASES)


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_policy(a_policy_object({"traffic.timeout": "soon", "thresholds.errorRate.max": "5", "unheardOf": 1}))
    assert [problem.path for problem in refused.value.problems] == [
        "spec.thresholds.errorRate.max",
        "spec.traffic.timeout",
        "spec.unheardOf",
    ]


def test_every_broken_rule_is_reported_at_once() -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_policy(a_policy_object({"thresholds.window": "1s", "network.ingress": [{}], "security.allow": [{}]}))
    assert [problem.path for problem in refused.value.problems] == [
        "spec.network.ingress[0]",
        "spec.security.allow[0]",
        "spec.thresholds.window",
    ]


def test_the_unchanged_object_is_accepted() -> None:
    policy = parse_policy(a_policy_object())
    assert (policy.metadata.namespace, policy.metadata.name) == ("shops", "shop")


def test_an_object_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"expected perfpolicy.io/v1alpha1 PerformancePolicy, got perfpolicy.io/v1alpha1 Deployment"):
        parse_policy({**a_policy_object(), "kind": "Deployment"})


def _models(model: type[Wire], seen: set[type[Wire]]) -> set[type[Wire]]:
    """`model` and every model below it."""
    if model not in seen:
        seen.add(model)
        for info in model.model_fields.values():
            for child in _inside(info.annotation):
                _models(child, seen)
    return seen


def _inside(annotation: object) -> Iterator[type[Wire]]:
    if isinstance(annotation, type) and issubclass(annotation, Wire):
        yield annotation
    for option in get_args(annotation):
        yield from _inside(option)


RULED = sorted(_models(PerformancePolicy, set()), key=lambda model: model.__name__)


def test_the_table_breaks_every_rule() -> None:
    broken = set()
    for case in CASES:
        with pytest.raises(InvalidSpec) as refused:
            parse_policy(a_policy_object(case.changes, name=case.name))
        broken |= {problem.message for problem in refused.value.problems}
    assert [rule.message for model in RULED for rule in model.all_rules() if rule.message not in broken] == []
    assert len(RULED) > 40
