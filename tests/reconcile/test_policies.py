"""What is known of policies and classes, and who is told of a change."""

import json
import zlib
from typing import Any

import pytest

from perfpolicy.policy.model import PolicyKey
from perfpolicy.reconcile.policies import Classes, Policies


def raw(name: str = "web", version: int = 1, uid: str = "u", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version), "generation": 1, "managedFields": [{}]}
    return {"metadata": {**metadata, **more.pop("metadata", {})}, "spec": {"className": "gold", **more.pop("spec", {})}, **more}


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def policies(told: list[str]) -> Policies:
    return Policies(lambda key: told.append(key.name))


WEB = PolicyKey("ns", "web")


def test_a_new_policy_is_told_and_a_status_write_is_not(policies: Policies, told: list[str]) -> None:
    policies.put(raw())
    policies.put(raw(version=2, status={"conditions": []}))
    assert told == ["web"]


@pytest.mark.parametrize("change", [{"spec": {"mode": "Observe"}}, {"metadata": {"annotations": {"a": "b"}}}, {"uid": "other"}])
def test_any_other_change_is_told(policies: Policies, told: list[str], change: dict[str, Any]) -> None:
    policies.put(raw())
    policies.put(raw(version=2, **change))
    assert told == ["web", "web"]


def test_an_older_observation_is_ignored(policies: Policies, told: list[str]) -> None:
    policies.put(raw(version=5, spec={"mode": "Observe"}))
    policies.put(raw(version=4))
    assert told == ["web"]
    known = policies.get(WEB)
    assert known is not None
    assert known.raw()["spec"]["mode"] == "Observe"


def test_the_newest_status_is_known_whoever_wrote_it(policies: Policies) -> None:
    policies.put(raw())
    assert (known := policies.get(WEB)) is not None
    assert known.status == b""
    for version, generation in ((3, 8), (2, 7)):
        policies.put(raw(version=version, status={"observedGeneration": generation}))
    assert (known := policies.get(WEB)) is not None
    assert json.loads(zlib.decompress(known.status)) == {"observedGeneration": 8}


def test_a_deletion_is_for_one_uid(policies: Policies, told: list[str]) -> None:
    policies.put(raw(uid="second"))
    policies.drop(WEB, "first")
    assert policies.get(WEB) is not None
    policies.drop(WEB, "second")
    assert policies.get(WEB) is None
    assert told == ["web", "web"]


def test_those_who_share_a_claim_are_told_of_each_others_coming_and_going(policies: Policies, told: list[str]) -> None:
    target = {"workload": {"targetRef": {"kind": "Deployment", "name": "shared"}}}
    policies.put(raw("a", spec=target))
    policies.put(raw("b", uid="v", spec=target))
    assert told == ["a", "a", "b"]
    told.clear()
    policies.drop(PolicyKey("ns", "a"))
    assert told == ["a", "b"]


def test_a_list_reveals_what_went_or_changed_unseen(policies: Policies) -> None:
    for name in ("same", "gone", "behind", "recreated", "ahead"):
        policies.put(raw(name, version=5))
    listed = [raw(name, version)["metadata"] for name, version in (("same", 5), ("behind", 6), ("new", 1), ("ahead", 4))]
    listed.append(raw("recreated", 7, uid="second")["metadata"])
    gone, behind = policies.stale(listed)
    assert {key.name for key in gone} == {"gone"}
    assert {key.name for key in behind} == {"behind", "new", "recreated"}


def a_class(generation: int = 1, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "perfpolicy.io/v1alpha1",
        "kind": "PerformanceClass",
        "metadata": {"name": "gold", "uid": "u", "generation": generation},
        "spec": {"metrics": {"address": "http://prometheus:9090"}, **spec},
    }


def test_a_class_is_told_when_it_comes_changes_and_goes() -> None:
    told: list[str] = []
    classes = Classes(told.append)
    classes.put(a_class())
    classes.put(a_class())
    classes.put(a_class(2, limits={"maxReplicas": 3}))
    assert [cls.metadata.generation for cls in classes] == [2]
    classes.drop("gold")
    classes.drop("gold")
    assert told == ["gold"] * 3
    assert not list(classes)


def test_an_older_observation_of_a_class_changes_nothing() -> None:
    classes = Classes(lambda _: None)
    for generation in (2, 1):
        seen = a_class(generation)
        classes.put({**seen, "metadata": {**seen["metadata"], "resourceVersion": str(generation)}})
    assert [cls.metadata.generation for cls in classes] == [2]
    again = a_class(1)
    classes.put({**again, "metadata": {**again["metadata"], "uid": "another", "resourceVersion": "1"}})
    assert [cls.metadata.generation for cls in classes] == [1], "one made anew"


def test_a_class_that_breaks_a_rule_is_reported_and_not_used() -> None:
    classes = Classes(lambda _: None)
    classes.put(a_class())
    classes.put(a_class(2, nonsense=True))
    assert not list(classes)
    assert "gold" in classes.problems
    classes.put(a_class(3))
    assert classes.problems == {}
