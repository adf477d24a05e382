"""A watch survives what watches meet: disconnects, expired versions, refusals, kinds that go and come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, cast

import pytest

from perfpolicy.cluster import watch
from perfpolicy.cluster.client import Answer, ApiClient
from perfpolicy.cluster.resource import Resource
from perfpolicy.cluster.watch import KindWatch
from perfpolicy.errors import ApiRejected, ApiUnavailable
from perfpolicy.settings import Settings
from tests.virtual_time import VirtualLoop

SERVICES = Resource("", "v1", "Service", "services")


def obj(name: str, version: int = 1, namespace: str = "ns") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "resourceVersion": str(version)}}


class FakeApi:
    """Lists what it is given; every watch plays the next script, and waits when there is none left."""

    def __init__(self) -> None:
        self.pages: list[list[dict[str, Any]]] = [[]]
        self.scripts: list[list[Any]] = []
        self.lists: list[Mapping[str, str]] = []
        self.watches: list[Mapping[str, str]] = []
        self.silences: list[float] = []
        self.refusals: list[Exception] = []

    async def request(self, method: str, path: str, *, params: Mapping[str, str], accept: str) -> Answer:
        self.lists.append(params)
        if self.refusals:
            raise self.refusals.pop(0)
        page = int(params.get("continue", "0"))
        more = str(page + 1) if page + 1 < len(self.pages) else ""
        return Answer(200, {"items": self.pages[page], "metadata": {"resourceVersion": "100", "continue": more}}, {})

    async def stream(
        self, path: str, *, params: Mapping[str, str], silence: float, accept: str, on_open: Callable[[], None]
    ) -> AsyncIterator[dict[str, Any]]:
        self.watches.append(params)
        self.silences.append(silence)
        if self.scripts and self.scripts[0] and isinstance(self.scripts[0][0], ApiRejected):
            raise self.scripts.pop(0)[0]
        on_open()
        if not self.scripts:
            await asyncio.Event().wait()
        for event in self.scripts.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


class Sink:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []

    def put(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        self.log.append(("put", obj["metadata"]["name"]))

    def drop(self, resource: Resource, obj: Mapping[str, Any]) -> None:
        self.log.append(("drop", obj["metadata"]["name"]))

    def retain(self, resource: Resource, namespace: str | None, names: set[tuple[str, str]]) -> None:
        self.log.append(("retain", ",".join(sorted(name for _, name in names))))


class Bench:
    def __init__(self) -> None:
        self.api, self.sink = FakeApi(), Sink()
        self.task: asyncio.Task[None] | None = None

    def start(self, **options: Any) -> KindWatch:
        found = KindWatch(cast(ApiClient, self.api), SERVICES, self.sink, **options)
        self.task = asyncio.create_task(found.run())
        return found

    async def until(self, check: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not check():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(watch, "_BACKOFF_MIN", 0.001)
    monkeypatch.setattr(watch, "_BACKOFF_MAX", 0.002)
    bench = Bench()
    yield bench
    if bench.task is not None:
        bench.task.cancel()
        await asyncio.gather(bench.task, return_exceptions=True)


async def test_a_kind_is_listed_page_by_page_then_watched(bench: Bench) -> None:
    bench.api.pages = [[obj("a")], [obj("b")]]
    bench.api.scripts = [[{"type": "MODIFIED", "object": obj("a", 101)}, {"type": "DELETED", "object": obj("b", 102)}]]
    bench.start(selector="x=y").set_served(True)
    await bench.until(lambda: len(bench.api.watches) == 2)
    assert bench.sink.log == [("put", "a"), ("put", "b"), ("retain", "a,b"), ("put", "a"), ("drop", "b")]
    assert all(params["labelSelector"] == "x=y" for params in [*bench.api.lists, *bench.api.watches])
    assert [params["resourceVersion"] for params in bench.api.watches] == ["100", "102"], "the next watch goes on where the last ended"
    assert len(bench.api.lists) == 2


async def test_bookmarks_move_the_version_on(bench: Bench) -> None:
    bench.api.scripts = [[{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "555"}}}]]
    bench.start().set_served(True)
    await bench.until(lambda: len(bench.api.watches) == 2)
    assert bench.api.watches[1]["resourceVersion"] == "555"
    assert bench.sink.log == [("retain", "")]


@pytest.mark.parametrize(
    "end", [{"type": "ERROR", "object": {"code": 410, "message": "too old"}}, ApiRejected("expired", 410), ApiRejected("forbidden", 403)]
)
async def test_an_expired_version_leads_to_a_new_list(bench: Bench, end: Any) -> None:
    bench.api.scripts = [[end]]
    bench.start().set_served(True)
    await bench.until(lambda: len(bench.api.lists) == 2)


async def test_a_broken_stream_is_resumed_without_a_list(bench: Bench) -> None:
    bench.api.scripts = [[{"type": "ADDED", "object": obj("a", 101)}, ApiUnavailable("reset")], [ApiUnavailable("reset")]]
    found = bench.start()
    found.set_served(True)
    await bench.until(lambda: len(bench.api.watches) == 3)
    assert len(bench.api.lists) == 1


async def test_a_watch_outlives_its_silence_by_seconds_only(bench: Bench) -> None:
    bench.start(timeout=Settings().watch_timeout).set_served(True)
    await bench.until(lambda: len(bench.api.watches) == 1)
    asked = int(bench.api.watches[0]["timeoutSeconds"])
    assert asked < bench.api.silences[0] <= asked + 5, "not before the API server has had the time to end it"
    assert bench.api.silences[0] < 60, "noticed within a minute"


async def test_an_error_within_a_watch_leads_to_a_new_list_because_it_may_come_of_the_version(bench: Bench) -> None:
    bench.api.scripts = [[{"type": "ERROR", "object": {"code": 500, "message": "unable to decode"}}]]
    found = bench.start()
    found.set_served(True)
    await bench.until(lambda: len(bench.api.lists) == 2 and found.complete)
    assert found.problem == ""


async def test_a_watch_is_as_old_as_what_it_last_heard(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    more = asyncio.Event()

    async def stream(path: str, *, on_open: Callable[[], None], **_: Any) -> AsyncIterator[dict[str, Any]]:
        on_open()
        await more.wait()
        yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "555"}}}
        await asyncio.Event().wait()

    monkeypatch.setattr(bench.api, "stream", stream)
    found = bench.start(timeout=5)
    assert found.age is None
    found.set_served(True)
    await bench.until(lambda: found.complete)
    started = asyncio.get_running_loop().time()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: started + 21)
    assert found.age == pytest.approx(21, abs=0.5)
    assert found.stuck, "four renewals without a word, and no problem is known"
    more.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert found.age == 0
    assert not found.stuck
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: started + 50)
    found.problem = "forbidden"
    assert not found.stuck, "who knows that nothing comes tries again; a new process could do no more"
    found.set_served(False)
    assert found.age is None


async def test_a_problem_ends_when_the_watch_is_open_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.api.scripts = [[ApiUnavailable("reset")]]
    found = bench.start()
    found.set_served(True)
    await bench.until(lambda: len(bench.api.watches) == 2 and found.problem == "")
    assert "interrupted" in caplog.text
    assert bench.sink.log == [("retain", "")], "nothing had to happen for it"


async def test_a_kind_counts_as_settled_after_its_list(bench: Bench) -> None:
    found = bench.start()
    assert not found.settled.is_set()
    found.set_served(True)
    await asyncio.wait_for(found.settled.wait(), 5)
    assert found.problem == ""


async def test_an_unanswered_list_is_retried_and_reported(bench: Bench) -> None:
    bench.api.refusals = [ApiUnavailable("down")] * 1000
    found = bench.start()
    found.set_served(True)
    await bench.until(lambda: found.problem == "down")
    assert not found.settled.is_set()
    bench.api.refusals.clear()
    await asyncio.wait_for(found.settled.wait(), 5)
    assert found.problem == ""


async def test_who_may_not_list_does_not_hold_the_operator_up(bench: Bench) -> None:
    bench.api.refusals = [ApiRejected("forbidden", 403)] * 1000
    found = bench.start()
    found.set_served(True)
    await asyncio.wait_for(found.settled.wait(), 5)
    assert "forbidden" in found.problem


async def test_a_kind_that_is_not_served_is_waited_for_and_everything_of_it_is_forgotten(bench: Bench) -> None:
    bench.api.pages = [[obj("a")]]
    bench.api.scripts = [[{"type": "MODIFIED", "object": obj("a", 101)}, ApiUnavailable("the stream ends with its CRD")]]
    found = bench.start()
    found.set_served(True)
    await bench.until(lambda: ("retain", "a") in bench.sink.log)
    found.set_served(False)
    assert bench.sink.log[-1] == ("retain", "")
    assert found.settled.is_set()
    lists = len(bench.api.lists)
    found.set_served(True)
    bench.api.scripts = []
    assert bench.task is not None
    bench.task.cancel()
    await asyncio.gather(bench.task, return_exceptions=True)
    again = bench.start()
    again.set_served(True)
    await bench.until(lambda: len(bench.api.lists) > lists)


async def test_namespaces_are_watched_apart_and_settle_together(bench: Bench) -> None:
    bench.api.pages = [[obj("a")]]
    found = bench.start(namespaces=("one", "two"))
    found.set_served(True)
    await asyncio.wait_for(found.settled.wait(), 5)
    await bench.until(lambda: len(bench.api.watches) == 2)
    assert len(bench.api.lists) == 2


async def test_a_watch_begins_anew_with_a_list_now_and_then(bench: Bench) -> None:
    bench.api.scripts = [[], [], []]
    bench.start(relist=0.0).set_served(True)
    await bench.until(lambda: len(bench.api.lists) >= 3)


def test_a_watch_asked_for_a_short_time_is_renewed_without_a_pause() -> None:
    watched = 0.0

    class Ending(FakeApi):
        async def stream(self, path: str, *, params: Mapping[str, str], **_: Any) -> AsyncIterator[dict[str, Any]]:
            nonlocal watched
            seconds = int(params["timeoutSeconds"])
            await asyncio.sleep(seconds)
            watched += seconds
            for event in list[dict[str, Any]]():
                yield event

    async def follow() -> None:
        found = KindWatch(cast(ApiClient, Ending()), SERVICES, Sink(), timeout=5)
        found.set_served(True)
        with suppress(TimeoutError):
            await asyncio.wait_for(found.run(), 200)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(follow())
    assert watched > 190


async def test_a_kind_is_complete_only_while_it_is_served_and_listed(bench: Bench) -> None:
    found = bench.start()
    assert not found.complete
    found.set_served(True)
    assert not found.complete, "served, but not listed yet"
    await bench.until(lambda: found.complete)
    found.set_served(False)
    found.set_served(True)
    assert not found.complete, "served again, but not listed since"


async def test_a_kind_that_may_not_be_listed_is_not_complete(bench: Bench) -> None:
    bench.api.refusals = [ApiRejected("forbidden", 403)] * 1000
    found = bench.start()
    found.set_served(True)
    await asyncio.wait_for(found.settled.wait(), 5)
    assert not found.complete
    bench.api.refusals.clear()
    await bench.until(lambda: found.complete)


async def test_an_object_nobody_can_take_in_does_not_hide_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse_bad(resource: Resource, obj: Mapping[str, Any]) -> None:
        if obj["metadata"]["name"] == "bad":
            raise RecursionError
        Sink.put(bench.sink, resource, obj)

    monkeypatch.setattr(bench.sink, "put", refuse_bad)
    bench.api.pages = [[obj("bad"), obj("a")]]
    bench.api.scripts = [[{"type": "MODIFIED", "object": obj("bad", 101)}, {"type": "ADDED", "object": obj("b", 102)}]]
    bench.start().set_served(True)
    await bench.until(lambda: ("put", "b") in bench.sink.log)
    assert bench.sink.log == [("put", "a"), ("retain", "a,bad"), ("put", "b")]
    assert len(bench.api.lists) == 1
    assert [record.message for record in caplog.records] == ["an object cannot be taken in"] * 2


async def test_a_kind_that_was_never_served_holds_nobody_up(bench: Bench) -> None:
    found = bench.start()
    found.set_served(False)
    assert found.settled.is_set()
    assert bench.api.lists == []
