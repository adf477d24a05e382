"""Namespaces read one by one, as a Role in each allows."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from perfpolicy.cluster import namespaces
from perfpolicy.cluster.client import Answer
from perfpolicy.cluster.namespaces import NamespaceLook
from perfpolicy.cluster.resource import Resource
from perfpolicy.errors import ApiRejected, ApiUnavailable
from tests.cluster.test_adapters import FakeApi

A, B = "GET /api/v1/namespaces/a", "GET /api/v1/namespaces/b"


class Sink:
    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def put(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        self.known[obj["metadata"]["name"]] = obj["metadata"].get("labels")

    def drop(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        self.known.pop(obj["metadata"]["name"], None)

    def retain(self, resource: Resource, namespace: str | None, names: set[tuple[str, str]]) -> None:
        raise AssertionError("there is no complete list")


def answer(name: str, **labels: str) -> Answer:
    return Answer(200, {"metadata": {"name": name, "labels": labels}}, {})


def look_at(api: FakeApi, sink: Sink) -> NamespaceLook:
    return NamespaceLook(api.client, sink, ("a", "b"), interval=0.001)


async def test_each_is_asked_for_by_name_and_what_it_says_is_told() -> None:
    api, sink = FakeApi(), Sink()
    api.answers = {A: [answer("a", team="x"), answer("a", team="y")], B: [answer("b")]}
    look = look_at(api, sink)
    await look.look()
    assert sink.known == {"a": {"team": "x"}, "b": {}}
    assert look.settled.is_set()
    await look.look()
    assert sink.known["a"] == {"team": "y"}
    assert set(api.paths()) == {A, B}, "nothing is listed or watched"


async def test_one_that_is_gone_is_dropped_and_no_problem() -> None:
    api, sink = FakeApi(), Sink()
    api.answers = {A: [answer("a"), ApiRejected("not found", 404)], B: [answer("b")]}
    look = look_at(api, sink)
    await look.look()
    await look.look()
    assert (set(sink.known), look.problem) == ({"b"}, "")


async def test_one_that_is_missing_is_seen_soon_after_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies come right after their namespace, and what its labels grant must not wait for the next look at all of them."""
    monkeypatch.setattr(namespaces, "_SOON", 0.001)
    api, sink = FakeApi(), Sink()
    api.answers = {A: [ApiRejected("not found", 404), ApiRejected("not found", 404), answer("a", team="x")], B: [answer("b")]}
    look = asyncio.create_task(NamespaceLook(api.client, sink, ("a", "b"), interval=3600).run())
    async with asyncio.timeout(5):
        while "a" not in sink.known:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    look.cancel()
    assert sink.known["a"] == {"team": "x"}
    assert api.paths().count(B) == 1, "those that are there are left in peace"
    assert api.paths().count(A) == 3, "and so is this one from now on"


async def test_one_that_is_refused_is_reported_and_not_waited_for() -> None:
    api, sink = FakeApi(), Sink()
    api.answers = {A: [ApiRejected("a is forbidden", 403), answer("a")], B: [answer("b")]}
    look = look_at(api, sink)
    await look.look()
    assert look.settled.is_set()
    assert (set(sink.known), look.problem) == ({"b"}, "a is forbidden")
    await look.look()
    assert (set(sink.known), look.problem) == ({"a", "b"}, "")


async def test_an_api_server_that_does_not_answer_is_waited_for_and_keeps_what_was_known() -> None:
    api, sink = FakeApi(), Sink()
    api.answers = {A: [ApiUnavailable("away"), answer("a"), ApiUnavailable("away")], B: [answer("b")]}
    look = look_at(api, sink)
    await look.look()
    assert not look.settled.is_set()
    await look.look()
    assert look.settled.is_set()
    await look.look()
    assert (set(sink.known), look.problem) == ({"a", "b"}, "away")


async def test_it_looks_again_and_again() -> None:
    api, sink = FakeApi(), Sink()
    api.answers = {A: [answer("a")], B: [answer("b")]}
    task = asyncio.create_task(look_at(api, sink).run())
    async with asyncio.timeout(5):
        while len(api.asked) < 6:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    task.cancel()
