"""Whose an object is, and what is pruned."""

from dataclasses import replace
from typing import Any

import pytest

from perfpolicy.policy.model import PolicyKey
from perfpolicy.reconcile.children import Child, ChildRef, observe
from perfpolicy.reconcile.inventory import to_prune
from perfpolicy.reconcile.ownership import Ownership, judge, routed_elsewhere
from perfpolicy.render.manifest import GroupKind

REF = ChildRef(GroupKind("", "Service"), "ns", "web")
POLICY = PolicyKey("ns", "web")


def labels(policy: str) -> dict[str, str]:
    return {"app.kubernetes.io/managed-by": "perfpolicy", "perfpolicy.io/policy": policy}


def owned_by(uid: str, name: str = "web", kind: str = "PerformancePolicy", api: str = "perfpolicy.io/v1alpha1") -> list[dict[str, Any]]:
    return [{"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": True}]


def child(**metadata: Any) -> Child:
    return observe({"uid": "child", "name": "web", "namespace": "ns", "resourceVersion": "7", **metadata})


HELM = [{"manager": "helm", "operation": "Update", "fieldsV1": {}}]


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        (None, Ownership.ABSENT),
        (child(ownerReferences=owned_by("me")), Ownership.OURS),
        (child(ownerReferences=owned_by("me"), labels={"app.kubernetes.io/managed-by": "helm"}), Ownership.OURS),
        (child(labels=labels("web")), Ownership.OURS),
        (child(annotations={"perfpolicy.io/adopt": "web"}), Ownership.ADOPT),
        (child(ownerReferences=owned_by("former")), Ownership.WAIT),
        (child(ownerReferences=owned_by("me"), deletionTimestamp="now"), Ownership.WAIT),
        (child(), Ownership.FOREIGN),
        (child(labels=labels("other")), Ownership.FOREIGN),
        (child(labels={"perfpolicy.io/policy": "web"}), Ownership.FOREIGN),
        (child(annotations={"perfpolicy.io/adopt": "other"}), Ownership.FOREIGN),
        (child(ownerReferences=owned_by("x", name="other")), Ownership.FOREIGN),
        (child(ownerReferences=owned_by("x", kind="Application", api="argoproj.io/v1"), labels=labels("web")), Ownership.FOREIGN),
        (child(ownerReferences=owned_by("x", kind="Application"), annotations={"perfpolicy.io/adopt": "web"}), Ownership.FOREIGN),
    ],
)
def test_an_object_is_judged_by_its_owner_then_its_labels(live: Child | None, expected: Ownership) -> None:
    assert judge(REF, live, POLICY, "me").ownership is expected


def test_a_judgement_names_the_object_the_holder_and_the_way_out() -> None:
    message = judge(REF, child(managedFields=HELM), POLICY, "me").message
    assert "Service ns/web" in message
    assert "helm" in message
    assert "perfpolicy.io/adopt=web" in message


def test_a_status_writer_is_not_taken_for_the_holder() -> None:
    managed = [{"manager": "controller", "operation": "Update", "subresource": "status", "fieldsV1": {}}, *HELM]
    assert child(managedFields=managed).manager == "helm"


def test_a_controllers_status_write_is_no_change_of_a_child_of_ours() -> None:
    ours = child(ownerReferences=owned_by("me"))
    touched = child(ownerReferences=owned_by("me"), resourceVersion="8", managedFields=HELM)
    assert ours == touched


@pytest.mark.parametrize(("manager", "expected"), [("flagger", "flagger"), ("kubectl-edit", ""), ("kubectl-patch", ""), ("", "")])
def test_routes_are_yielded_to_controllers_and_taken_back_from_people(manager: str, expected: str) -> None:
    managed = [{"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {"f:http": {}}}}] if manager else []
    assert routed_elsewhere(child(managedFields=managed)) == expected


def test_pruned_is_what_is_recorded_or_owned_but_not_wanted() -> None:
    a, b, c, d = (replace_name(name) for name in "abcd")
    assert to_prune([a, b], [b, c, d], [d]) == (a, b, c)
    assert to_prune([], [], [d]) == ()


def replace_name(name: str) -> ChildRef:
    return REF._replace(name=name)


def test_children_are_equal_whatever_their_version() -> None:
    assert replace(child(), version=1) == child()
