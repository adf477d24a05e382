"""The generated rights: derived from what is rendered and watched, and never more than a few plain verbs."""

import re
from typing import Any

import pytest

from perfpolicy.render.registry import KINDS
from perfpolicy.runtime import WATCHED
from tools import access

RIGHTS = [right for rights in access.rights().values() for right in rights]
VERBS = {(right.resource, verb) for right in RIGHTS for verb in right.verbs}


def test_nothing_is_wild_secret_or_a_way_to_more_rights() -> None:
    assert {verb for _, verb in VERBS} == {"get", "list", "watch", "create", "patch", "update", "delete"}
    assert not [right for right in RIGHTS if "*" in (right.group, right.resource)]
    resources = {right.resource for right in RIGHTS}
    assert not {"secrets", "serviceaccounts", "roles", "rolebindings", "clusterroles", "clusterrolebindings", "pods"} & resources
    assert not [resource for resource in resources if "/" in resource and resource != "performancepolicies/status"]


def test_every_child_may_be_written_and_everything_watched_be_read() -> None:
    assert {(kind.plural, verb) for kind in KINDS for verb in ("create", "patch")} <= VERBS
    assert {(resource.plural, verb) for resource in WATCHED for verb in ("get", "list", "watch")} <= VERBS


def test_only_children_statuses_events_and_the_lease_are_written() -> None:
    written = {resource for resource, verb in VERBS if verb in ("create", "patch", "update", "delete")}
    assert written == {kind.plural for kind in KINDS} | {"performancepolicies/status", "events", "leases"}


def test_writing_workloads_is_apart() -> None:
    rights = access.rights()
    assert {(right.group, right.resource) for right in rights["workloads"]} == {("apps", "deployments")}
    (plain,) = (right for right in rights["namespaced"] if right.resource == "deployments")
    assert plain.verbs == ("get", "list", "watch")


def test_nothing_cluster_scoped_is_in_a_namespaces_role() -> None:
    scoped = {resource.plural for resource in WATCHED if not resource.namespaced} | {"performanceclasses", "customresourcedefinitions"}
    assert not {right.resource for right in access.rights()["namespaced"]} & scoped
    assert access.rights()["own-namespace"] == [access.Right("", "namespaces", ("get",))]


def test_every_kind_has_one_validation_within_the_cost_of_one_expression() -> None:
    policies = access.admission()
    variables = [variable["name"] for policy in policies for variable in policy["variables"]]
    assert sorted(variables) == sorted(kind.plural for kind in KINDS)
    assert all("check('use')" in policy["validations"][0]["expression"] for policy in policies), "the class first, whichever is asked"
    of_kinds = [validation for policy in policies for validation in policy["validations"][1:]]
    kinds = {kind.plural: kind for kind in KINDS}
    for kind, validation in zip((kinds[name] for name in variables), of_kinds, strict=True):
        assert f"resource('{kind.plural}')" in validation["expression"]
        assert validation["expression"].count(".check(") == 2, "a third check would pass the limit of one expression"
        assert kind.asked_by in validation["messageExpression"]


def test_names_of_kinds_are_not_shared_between_groups() -> None:
    # performanceclasses/<plural> and variables.<plural> know no group.
    assert len({kind.plural for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_no_admission_policy_has_more_checks_than_the_api_server_pays_for(times: int) -> None:
    policies = access.admission(KINDS * times)
    checks = [sum(each["expression"].count(".check(") for each in policy["validations"]) for policy in policies]
    assert max(checks) * access.CHECK_COST <= 0.9 * access.POLICY_BUDGET
    assert sum(checks) == 2 * len(KINDS) * times + len(policies)
    assert all({v["name"] for v in policy["variables"]} == _asked_for(policy) for policy in policies)


def _asked_for(policy: dict[str, Any]) -> set[str]:
    """Variables the validations read, less the chart's own."""
    return {name for each in policy["validations"] for name in re.findall(r"variables\.(\w+)", each["expression"])} - {"className"}


def test_what_is_asked_is_said_of_both_the_new_and_the_old_spec() -> None:
    for variable in (variable for policy in access.admission() for variable in policy["variables"]):
        words = variable["expression"].replace("object.spec", "").replace("oldObject.spec", "")
        assert "spec." not in words, variable
