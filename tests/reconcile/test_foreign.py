"""Foreign mesh objects are found by what they claim, not by their names."""

from typing import Any

import pytest

from perfpolicy.reconcile.children import ChildRef
from perfpolicy.reconcile.foreign import (
    AUTOSCALER,
    DESTINATION_RULE,
    DISRUPTION_BUDGET,
    PEER_AUTHENTICATION,
    SCALED_OBJECT,
    TELEMETRY,
    VIRTUAL_SERVICE,
    ForeignClaims,
    full_name,
)
from perfpolicy.render.manifest import GroupKind
from perfpolicy.vocabulary import Reason
from tests.builders import a_policy, a_workload, traffic

POLICY = a_policy(name="web", namespace="ns", traffic=traffic(hosts=("api.test",)))
OWN_HOST = "web.ns.svc.cluster.local"


def obj(name: str, namespace: str = "ns", metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    managed = [{"manager": "helm", "operation": "Update", "fieldsV1": {}}]
    return {"metadata": {"name": name, "namespace": namespace, "managedFields": managed, **(metadata or {})}, "spec": spec}


def entitled(namespace: str, host: str) -> bool:
    """The class grants api.test to `elsewhere`."""
    return (namespace, host) == ("elsewhere", "api.test")


@pytest.fixture
def claims() -> ForeignClaims:
    return ForeignClaims(lambda _ref, _hosts: None)


def reasons(claims: ForeignClaims) -> list[tuple[GroupKind, Reason]]:
    return [(held.kind, held.reason) for held in claims.withheld(POLICY, entitled)]


@pytest.mark.parametrize(
    ("kind", "namespace", "spec", "withheld"),
    [
        (VIRTUAL_SERVICE, "ns", {"hosts": [OWN_HOST]}, True),
        (VIRTUAL_SERVICE, "ns", {"hosts": ["web"]}, True),
        (VIRTUAL_SERVICE, "ns", {"hosts": ["api.test"]}, True),
        (VIRTUAL_SERVICE, "ns", {"hosts": ["other"]}, False),
        (VIRTUAL_SERVICE, "elsewhere", {"hosts": ["web"]}, False),
        (VIRTUAL_SERVICE, "elsewhere", {"hosts": [OWN_HOST]}, False),
        (VIRTUAL_SERVICE, "elsewhere", {"hosts": [OWN_HOST], "exportTo": ["ns"]}, False),
        (VIRTUAL_SERVICE, "elsewhere", {"hosts": ["api.test"]}, True),
        (VIRTUAL_SERVICE, "elsewhere", {"hosts": ["api.test"], "exportTo": ["gateways"]}, True),
        (VIRTUAL_SERVICE, "nowhere", {"hosts": ["api.test"]}, False),
        (VIRTUAL_SERVICE, "elsewhere", {"hosts": ["api.test"], "exportTo": ["."]}, False),
        (VIRTUAL_SERVICE, "elsewhere", {"hosts": ["api.test"], "exportTo": ["~"]}, False),
        (VIRTUAL_SERVICE, "elsewhere", {"hosts": ["api.test"], "exportTo": ["elsewhere"]}, False),
        (DESTINATION_RULE, "ns", {"host": "web"}, True),
        (DESTINATION_RULE, "elsewhere", {"host": OWN_HOST}, False),
        (DESTINATION_RULE, "ns", {}, False),
    ],
)
def test_a_host_is_claimed_by_who_routes_it_where_we_can_see_it(
    claims: ForeignClaims, kind: GroupKind, namespace: str, spec: dict[str, Any], withheld: bool
) -> None:
    claims.put(kind, obj("theirs", namespace, **spec))
    assert reasons(claims) == ([(kind, Reason.HOST_CLAIMED)] if withheld else [])


@pytest.mark.parametrize("kind", [PEER_AUTHENTICATION, TELEMETRY])
@pytest.mark.parametrize(
    ("namespace", "selector", "withheld"),
    [
        ("ns", {"matchLabels": {"app": "web"}}, True),
        ("ns", {"matchLabels": {"app": "other"}}, False),
        ("ns", {}, False),
        ("elsewhere", {"matchLabels": {"app": "web"}}, False),
    ],
)
def test_pods_are_claimed_by_a_mesh_object_that_selects_them(
    claims: ForeignClaims, kind: GroupKind, namespace: str, selector: dict[str, Any], withheld: bool
) -> None:
    claims.put(kind, obj("theirs", namespace, selector=selector))
    assert reasons(claims) == ([(kind, Reason.PODS_CLAIMED)] if withheld else [])


DEPLOYMENT = GroupKind("apps", "Deployment")
LABELLED = a_policy(
    name="web",
    namespace="ns",
    workload=a_workload(name="web", selector={"app": "web"}, pod_labels={"app": "web", "tier": "front", "version": "stable"}),
)


@pytest.mark.parametrize(
    ("selector", "overlaps"),
    [
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"tier": "front"}}, True),
        ({"matchLabels": {"tier": "back"}}, False),
        ({"matchLabels": {"app": "web", "version": "canary"}}, True),
        ({"matchLabels": {"version": "canary"}}, False),
        ({}, True),
        (None, False),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["back"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}, False),
        ({"matchExpressions": [{"key": "gone", "operator": "NotIn", "values": ["front"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "gone", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "gone", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["back"]}]}, True),
        ({"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
    ],
)
def test_a_budget_that_selects_any_of_the_pods_withholds_ours(
    claims: ForeignClaims, selector: dict[str, Any] | None, overlaps: bool
) -> None:
    claims.put(DISRUPTION_BUDGET, obj("theirs", selector=selector))
    claims.put(DISRUPTION_BUDGET, obj("afar", "elsewhere", selector=selector))
    found = [(held.kind, held.reason) for held in claims.withheld(LABELLED, entitled)]
    assert found == ([(DISRUPTION_BUDGET, Reason.PODS_CLAIMED)] if overlaps else [])


@pytest.mark.parametrize(
    ("target", "scales"),
    [
        ({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, True),
        ({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"}, False),
        ({"apiVersion": "argoproj.io/v1alpha1", "kind": "Deployment", "name": "web"}, False),
        ({"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}, False),
    ],
)
@pytest.mark.parametrize("kind", [AUTOSCALER, SCALED_OBJECT])
def test_who_scales_the_workload_withholds_our_autoscaler(
    claims: ForeignClaims, kind: GroupKind, target: dict[str, str], scales: bool
) -> None:
    claims.put(kind, obj("theirs", scaleTargetRef=target))
    claims.put(kind, obj("afar", "elsewhere", scaleTargetRef=target))
    assert reasons(claims) == ([(AUTOSCALER, Reason.SCALE_TARGET_CLAIMED)] if scales else [])
    assert claims.scales(ChildRef(DEPLOYMENT, "ns", "web")) is scales
    claims.drop(ChildRef(kind, "ns", "theirs"))
    assert not claims.scales(ChildRef(DEPLOYMENT, "ns", "web"))
    assert reasons(claims) == []


def test_a_scaled_object_may_leave_out_what_its_target_is_and_is_named_before_what_keda_makes_of_it(claims: ForeignClaims) -> None:
    claims.put(AUTOSCALER, obj("keda-hpa-theirs", scaleTargetRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}))
    claims.put(SCALED_OBJECT, obj("theirs", scaleTargetRef={"name": "web"}))
    messages = [held.message for held in claims.withheld(POLICY, entitled)]
    assert messages[0] == "ScaledObject ns/theirs (helm) already scales Deployment ns/web"


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (AUTOSCALER, {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}),
        (DISRUPTION_BUDGET, {"selector": {"matchLabels": {"app": "web"}}}),
        (PEER_AUTHENTICATION, {"selector": {"matchLabels": {"app": "web"}}}),
        (VIRTUAL_SERVICE, {"hosts": ["web"]}),
    ],
)
def test_what_is_offered_to_the_policy_under_the_name_of_its_child_is_no_claim(
    claims: ForeignClaims, kind: GroupKind, spec: dict[str, Any]
) -> None:
    for name, adopt, free in (("web", "web", True), ("web", "other", False), ("theirs", "web", False), ("web", "", False)):
        claims.put(kind, obj(name, metadata={"annotations": {"perfpolicy.io/adopt": adopt}}, **spec))
        assert bool(reasons(claims)) is not free, (name, adopt)
        claims.drop(ChildRef(kind, "ns", name))


@pytest.mark.parametrize(
    ("exported", "told"),
    [(None, True), ([], True), (["*"], True), (["ns", "x"], True), (["."], False), (["~"], False), (["x"], False)],
)
def test_a_route_of_another_namespace_for_our_own_service_is_told_where_we_see_it_and_withholds_nothing(
    claims: ForeignClaims, exported: list[str] | None, told: bool
) -> None:
    visible: dict[str, Any] = {} if exported is None else {"exportTo": exported}
    claims.put(VIRTUAL_SERVICE, obj("theirs", "elsewhere", hosts=[OWN_HOST], **visible))
    assert reasons(claims) == []
    assert [(held.kind, held.reason) for held in claims.reported(POLICY, entitled)] == (
        [(VIRTUAL_SERVICE, Reason.HOST_CLAIMED)] if told else []
    )


@pytest.mark.parametrize(("exported", "told"), [(["*"], True), (["gateways"], True), (["."], False)])
def test_a_route_for_an_external_host_by_a_namespace_that_is_not_granted_it_is_told_and_withholds_nothing(
    claims: ForeignClaims, exported: list[str], told: bool
) -> None:
    claims.put(VIRTUAL_SERVICE, obj("theirs", "nowhere", hosts=["api.test"], exportTo=exported))
    assert reasons(claims) == []
    messages = [held.message for held in claims.reported(POLICY, entitled)]
    assert ["class production does not grant it" in message for message in messages] == ([True] if told else [])


def test_what_withholds_is_not_told_twice(claims: ForeignClaims) -> None:
    claims.put(VIRTUAL_SERVICE, obj("near", hosts=["web"]))
    claims.put(VIRTUAL_SERVICE, obj("far", "elsewhere", hosts=["api.test"]))
    assert len(reasons(claims)) == 2
    assert list(claims.reported(POLICY, entitled)) == []


OURS = {"app.kubernetes.io/managed-by": "perfpolicy"}
OWNER = {"apiVersion": "perfpolicy.io/v1alpha1", "kind": "PerformancePolicy", "uid": "u", "name": "x"}


@pytest.mark.parametrize(
    ("metadata", "withheld"),
    [
        ({"ownerReferences": [OWNER]}, False),
        ({"labels": OURS}, True),
        ({"labels": OURS | {"perfpolicy.io/policy": "other"}}, True),
        ({"labels": OURS, "ownerReferences": [OWNER | {"kind": "PerformanceClass"}]}, True),
        # Left behind by a policy of this name that was deleted without its children: taken over again, see ownership.
        ({"labels": OURS | {"perfpolicy.io/policy": "web"}}, False),
    ],
)
@pytest.mark.parametrize(
    ("kind", "spec"), [(VIRTUAL_SERVICE, {"hosts": ["web"]}), (PEER_AUTHENTICATION, {"selector": {"matchLabels": {"app": "web"}}})]
)
def test_only_what_a_policy_owns_claims_nothing_here(
    claims: ForeignClaims, metadata: dict[str, Any], withheld: bool, kind: GroupKind, spec: dict[str, Any]
) -> None:
    claims.put(kind, obj("ours", metadata=metadata, **spec))
    assert bool(reasons(claims)) is withheld


def test_the_message_names_object_and_manager(claims: ForeignClaims) -> None:
    claims.put(VIRTUAL_SERVICE, obj("theirs", hosts=["web"]))
    (held,) = claims.withheld(POLICY, entitled)
    assert "VirtualService ns/theirs" in held.message
    assert "helm" in held.message


def test_a_claim_ends_with_its_object_or_its_change() -> None:
    told: list[tuple[str, frozenset[str]]] = []
    claims = ForeignClaims(lambda ref, hosts: told.append((ref.name, hosts)))
    claims.put(VIRTUAL_SERVICE, obj("theirs", hosts=["web"]))
    claims.put(VIRTUAL_SERVICE, obj("theirs", hosts=["web"]))
    claims.put(VIRTUAL_SERVICE, obj("theirs", hosts=["other"]))
    assert reasons(claims) == []
    claims.drop(ChildRef(VIRTUAL_SERVICE, "ns", "theirs"))
    other = "other.ns.svc.cluster.local"
    assert told == [("theirs", frozenset({OWN_HOST})), ("theirs", frozenset({OWN_HOST, other})), ("theirs", frozenset({other}))]
    assert claims.refs(VIRTUAL_SERVICE) == ()


def test_a_name_without_dots_belongs_to_the_objects_own_namespace() -> None:
    assert full_name("web", "ns") == OWN_HOST
    assert full_name("*", "ns") == "*"
    assert full_name("api.test", "ns") == "api.test"
