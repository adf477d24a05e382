"""The cache of live objects: older observations are ignored, real changes are told, our own writes are not."""

from typing import Any

import pytest

from perfpolicy.reconcile.children import Child, ChildCache, ChildRef, observe
from perfpolicy.render.manifest import GroupKind

KIND = GroupKind("", "Service")


def metadata(name: str = "web", version: int = 1, owner: str = "u", **more: Any) -> dict[str, Any]:
    references = [{"apiVersion": "perfpolicy.io/v1alpha1", "kind": "PerformancePolicy", "name": "p", "uid": owner, "controller": True}]
    return {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version), "ownerReferences": references, **more}


def ref(name: str = "web") -> ChildRef:
    return ChildRef(KIND, "ns", name)


Told = list[tuple[str, bool, bool]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def cache(told: Told) -> ChildCache:
    def listen(where: ChildRef, old: Child | None, new: Child | None) -> None:
        told.append((where.name, old is not None, new is not None))

    return ChildCache(listen)


def test_what_a_watch_shows_is_kept_and_told(cache: ChildCache, told: Told) -> None:
    cache.put(KIND, metadata())
    assert cache.get(ref()) == observe(metadata())
    assert cache.owned("u") == {ref()}
    assert told == [("web", False, True)]


def test_an_observation_without_news_is_not_told(cache: ChildCache, told: Told) -> None:
    cache.put(KIND, metadata(version=1))
    cache.put(KIND, metadata(version=2))
    assert len(told) == 1


def test_an_older_observation_is_ignored(cache: ChildCache, told: Told) -> None:
    cache.put(KIND, metadata(version=5))
    cache.put(KIND, metadata(version=4, owner="stale"))
    cache.drop(KIND, metadata(version=3))
    assert cache.owned("u") == {ref()}
    assert len(told) == 1


def test_the_answer_to_our_own_write_is_kept_silently_and_its_echo_too(cache: ChildCache, told: Told) -> None:
    cache.learn(ref(), observe(metadata(version=9)))
    cache.put(KIND, metadata(version=9))
    assert cache.get(ref()) is not None
    assert told == []


def test_an_answer_older_than_what_the_watch_showed_is_ignored(cache: ChildCache) -> None:
    cache.put(KIND, metadata(version=9, owner="new"))
    cache.learn(ref(), observe(metadata(version=8, owner="old")))
    assert cache.owned("new") == {ref()}


def test_a_lost_object_leaves_the_owners_index(cache: ChildCache, told: Told) -> None:
    cache.put(KIND, metadata(version=1))
    cache.drop(KIND, metadata(version=2))
    assert cache.get(ref()) is None
    assert cache.owned("u") == frozenset()
    assert told[-1] == ("web", True, False)


def test_a_change_of_owner_moves_the_object_between_owners(cache: ChildCache) -> None:
    cache.put(KIND, metadata(version=1, owner="a"))
    cache.put(KIND, metadata(version=2, owner="b"))
    assert cache.owned("a") == frozenset()
    assert cache.owned("b") == {ref()}


def test_a_complete_list_reveals_what_is_gone_in_its_own_namespace_only(cache: ChildCache, told: Told) -> None:
    for name in ("kept", "gone"):
        cache.put(KIND, metadata(name))
    cache.put(KIND, {**metadata("elsewhere"), "namespace": "other"})
    cache.retain(KIND, "ns", {("ns", "kept")})
    assert {where.name for where, _ in cache.of_kind(KIND)} == {"kept", "elsewhere"}
    assert told[-1] == ("gone", True, False)
    cache.retain(KIND, None, {("ns", "kept")})
    assert {where.name for where, _ in cache.of_kind(KIND)} == {"kept"}


def test_versions_that_are_no_numbers_are_taken_as_they_come(cache: ChildCache) -> None:
    cache.put(KIND, metadata() | {"resourceVersion": "b"})
    cache.put(KIND, metadata(owner="v") | {"resourceVersion": "a"})
    assert cache.owned("v") == {ref()}


def test_the_echo_of_a_write_under_way_is_not_told_and_a_later_change_is(cache: ChildCache, told: Told) -> None:
    with cache.writing(ref()):
        cache.put(KIND, metadata(version=5))
        cache.learn(ref(), observe(metadata(version=5)))
    assert told == []
    with cache.writing(ref()):
        cache.put(KIND, metadata(version=6, owner="somebody"))
        assert told == []
        cache.learn(ref(), observe(metadata(version=5)))
    assert told == [("web", True, True)]


def test_a_deletion_during_a_write_is_told_after_it(cache: ChildCache, told: Told) -> None:
    cache.learn(ref(), observe(metadata(version=5)))
    with cache.writing(ref()):
        cache.drop(KIND, metadata(version=6))
    assert cache.get(ref()) is None
    assert told == [("web", True, False)]
