"""A converged child is recognised from its metadata alone; anything else is not."""

import json
from typing import Any

import pytest

from perfpolicy.reconcile.fieldset import digest, our_fields, owner_of, owns, with_digest
from perfpolicy.vocabulary import APPLIED_ANNOTATION

SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "ns", "labels": {"a": "b"}, "ownerReferences": [{"uid": "u", "name": "web"}]},
    "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}], "selector": {"app": "web"}, "externalIPs": []},
}
# As a real API server answered the apply of such a Service.
FIELDS: dict[str, Any] = {
    "f:metadata": {
        "f:labels": {"f:a": {}},
        "f:ownerReferences": {'k:{"uid":"u"}': {}},
    },
    "f:spec": {
        "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}, "f:targetPort": {}}},
        "f:selector": {},
        "f:externalIPs": {},
    },
}


def managed(fields: dict[str, Any], manager: str = "perfpolicy", operation: str = "Apply", **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": fields, **more}


def without(*path: str) -> str:
    """The field set as text, less the node at `path`."""
    fields = json.loads(json.dumps(FIELDS))
    node = fields
    for part in path[:-1]:
        node = node[part]
    del node[path[-1]]
    return json.dumps(fields)


def test_a_full_field_set_owns_its_manifest() -> None:
    assert owns(json.dumps(FIELDS), SERVICE)


@pytest.mark.parametrize(
    "path",
    [
        ("f:metadata", "f:labels", "f:a"),
        ("f:metadata", "f:ownerReferences", 'k:{"uid":"u"}'),
        ("f:spec", "f:selector"),
        ("f:spec", "f:ports", 'k:{"port":80,"protocol":"TCP"}', "f:targetPort"),
        ("f:spec",),
    ],
)
def test_a_field_taken_over_or_removed_is_noticed(path: tuple[str, ...]) -> None:
    # A map whose last member is gone keeps its key in a real answer: give the siblings something to stay.
    fields = json.loads(without(*path))
    fields["f:metadata"]["f:labels"]["f:kept"] = {}
    fields["f:metadata"]["f:ownerReferences"]['k:{"uid":"kept"}'] = {}
    assert not owns(json.dumps(fields), SERVICE)


def test_another_owner_reference_is_not_ours() -> None:
    fields = json.loads(json.dumps(FIELDS))
    fields["f:metadata"]["f:ownerReferences"] = {'k:{"uid":"other"}': {}}
    assert not owns(json.dumps(fields), SERVICE)


def test_an_atomic_field_is_owned_whole() -> None:
    route = {"metadata": {}, "spec": {"http": [{"route": [{"destination": {"host": "web"}}]}]}}
    assert owns(json.dumps({"f:spec": {"f:http": {}}}), route)
    assert not owns(json.dumps({"f:spec": {"f:hosts": {}}}), route)


def test_members_of_a_set_are_owned_one_by_one() -> None:
    manifest = {"metadata": {}, "spec": {"items": ["a", "b"]}}
    assert owns(json.dumps({"f:spec": {"f:items": {'v:"a"': {}, 'v:"b"': {}}}}), manifest)
    assert not owns(json.dumps({"f:spec": {"f:items": {'v:"a"': {}}}}), manifest)


def test_an_empty_list_is_owned_like_a_full_one() -> None:
    deny_all = {"metadata": {"annotations": {}}, "spec": {"rules": []}}
    assert owns(json.dumps({"f:spec": {"f:rules": {}}}), deny_all)
    assert not owns(json.dumps({"f:spec": {"f:selector": {}}}), deny_all), "somebody else has put rules there"


def test_null_asks_for_nothing() -> None:
    assert owns(json.dumps({"f:spec": {"f:a": {}}}), {"metadata": {}, "spec": {"a": 1, "b": None}})


def test_no_field_set_owns_nothing() -> None:
    assert not owns("", {"metadata": {}})


def test_only_our_own_apply_counts_as_ours() -> None:
    entries = [
        managed({"f:spec": {"f:a": {}}}, manager="kubectl"),
        managed({"f:spec": {"f:b": {}}}, operation="Update"),
        managed({"f:status": {}}, subresource="status"),
        managed({"f:spec": {"f:c": {}}}),
    ]
    assert json.loads(our_fields(entries)) == {"f:spec": {"f:c": {}}}
    assert our_fields(entries[:3]) == ""


def test_equal_field_sets_share_their_memory() -> None:
    assert our_fields([managed({"f:b": {}, "f:a": {}})]) is our_fields([managed({"f:a": {}, "f:b": {}})])


def test_children_of_different_owners_share_their_memory_too_and_are_still_told_apart() -> None:
    def fields(uid: str) -> str:
        return our_fields([managed({"f:metadata": {"f:ownerReferences": {f'k:{{"uid":"{uid}"}}': {}}}})], uid)

    assert fields("one") is fields("two")
    manifest = {"metadata": {"ownerReferences": [{"uid": "one"}]}}
    assert owns(fields("one"), manifest, "one")
    assert not owns(fields("one"), manifest, "two")


def test_the_owner_of_a_field_is_found_through_a_subresource_only_when_asked() -> None:
    entries = [
        managed({"f:spec": {"f:replicas": {}}}),
        managed({"f:spec": {"f:replicas": {}}}, manager="kubectl-edit", operation="Update"),
        managed({"f:spec": {"f:replicas": {}}}, manager="hpa", operation="Update", subresource="scale"),
    ]
    assert owner_of(entries, "spec", "replicas", subresource="scale") == "hpa"
    assert owner_of(entries, "spec", "replicas") == "kubectl-edit"
    assert owner_of(entries[:1], "spec", "replicas") == ""
    assert owner_of(entries, "spec", "http") == ""


def test_a_digest_depends_on_content_not_on_order() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_the_digest_rides_on_the_manifest_beside_other_annotations() -> None:
    manifest = {"metadata": {"name": "web", "annotations": {"x": "y"}}, "spec": {}}
    stamped = with_digest(manifest)
    assert stamped["metadata"]["annotations"] == {"x": "y", APPLIED_ANNOTATION: digest(manifest)}
    assert APPLIED_ANNOTATION not in manifest["metadata"]["annotations"], "the rendered manifest is left as it was"
