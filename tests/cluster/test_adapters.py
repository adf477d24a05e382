"""Paths, discovery, look-ups, statuses and Events."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from perfpolicy.cluster import events
from perfpolicy.cluster import lookup as lookup_module
from perfpolicy.cluster.client import Answer, ApiClient
from perfpolicy.cluster.discovery import Discovery, served_kinds
from perfpolicy.cluster.events import EventWriter, Notice, event_object, identity_of
from perfpolicy.cluster.lookup import Lookup
from perfpolicy.cluster.objects import Objects
from perfpolicy.cluster.resource import Resource, target_of
from perfpolicy.cluster.status import StatusWriter
from perfpolicy.errors import ApiRejected, ApiUnavailable
from perfpolicy.policy.model import PolicyKey
from perfpolicy.render.manifest import GroupKind

ROUTES = Resource("networking.istio.io", "v1", "VirtualService", "virtualservices")
SERVICES = Resource("", "v1", "Service", "services")
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
KEY = PolicyKey("ns", "web")


class FakeApi:
    """Answers by method and path; remembers what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer | Exception]] = {}
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    async def request(self, method: str, path: str, **more: Any) -> Answer:
        self.asked.append((f"{method} {path}", more))
        await asyncio.sleep(0)
        answers = self.answers.get(f"{method} {path}", [])
        answer = (answers.pop(0) if len(answers) > 1 else answers[0]) if answers else Answer(200, {"metadata": {}}, {})
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def client(self) -> ApiClient:
        return cast(ApiClient, self)

    def paths(self) -> list[str]:
        return [what for what, _ in self.asked]


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.mark.parametrize(
    ("resource", "where", "path"),
    [
        (SERVICES, (), "/api/v1/services"),
        (SERVICES, ("ns", "web"), "/api/v1/namespaces/ns/services/web"),
        (ROUTES, ("ns",), "/apis/networking.istio.io/v1/namespaces/ns/virtualservices"),
        (ROUTES, ("ns", "a/b", "status"), "/apis/networking.istio.io/v1/namespaces/ns/virtualservices/a%2Fb/status"),
        (NAMESPACES, (None, "ns"), "/api/v1/namespaces/ns"),
        (NAMESPACES, ("ignored", "ns"), "/api/v1/namespaces/ns"),
    ],
)
def test_paths(resource: Resource, where: tuple[Any, ...], path: str) -> None:
    assert resource.path(*where) == path


@pytest.mark.parametrize(
    ("method", "path", "watch", "target"),
    [
        ("GET", SERVICES.path(), False, ("list", "services")),
        ("GET", SERVICES.path("ns"), True, ("watch", "services")),
        ("GET", SERVICES.path("ns", "web"), False, ("get", "services")),
        ("PATCH", ROUTES.path("ns", "a/b", "status"), False, ("patch", "virtualservices/status")),
        ("DELETE", ROUTES.path("ns", "web"), False, ("delete", "virtualservices")),
        ("POST", ROUTES.path("ns"), False, ("create", "virtualservices")),
        ("PUT", ROUTES.path("ns", "namespaces"), False, ("update", "virtualservices")),
        ("GET", NAMESPACES.path(), False, ("list", "namespaces")),
        ("GET", NAMESPACES.path(None, "ns"), False, ("get", "namespaces")),
        ("GET", "/apis", False, ("get", "/apis")),
    ],
)
def test_requests_are_named_as_rbac_names_them(method: str, path: str, watch: bool, target: tuple[str, str]) -> None:
    assert target_of(method, path, watch=watch) == target


def discovered(*kinds: Resource) -> dict[str, Any]:
    return {
        "items": [
            {
                "metadata": {"name": kind.group},
                "versions": [{"version": kind.version, "resources": [{"responseKind": {"kind": kind.kind}}, {"resource": "no-kind"}]}],
            }
            for kind in kinds
        ]
    }


def test_served_kinds_are_read_from_the_aggregated_document() -> None:
    assert served_kinds(discovered(ROUTES)) == {("networking.istio.io", "v1", "VirtualService")}
    assert served_kinds({"items": None}) == frozenset()


async def test_discovery_tells_only_changes_and_asks_conditionally(api: FakeApi) -> None:
    told: list[frozenset[Resource]] = []
    discovery = Discovery(api.client, [ROUTES, SERVICES], told.append, 1)
    api.answers["GET /apis"] = [
        Answer(200, discovered(), {"ETag": '"1"'}),
        Answer(304, {}, {}),
        Answer(200, discovered(ROUTES), {"ETag": '"2"'}),
        Answer(200, discovered(ROUTES, NAMESPACES), {"ETag": '"3"'}),
    ]
    for _ in range(4):
        await discovery.look()
    assert told == [frozenset({SERVICES}), frozenset({SERVICES, ROUTES})]
    assert [more["headers"] for _, more in api.asked] == [{}, {"If-None-Match": '"1"'}, {"If-None-Match": '"1"'}, {"If-None-Match": '"2"'}]


async def test_a_kind_counts_as_gone_only_when_two_looks_in_a_row_miss_it(api: FakeApi) -> None:
    told: list[frozenset[Resource]] = []
    discovery = Discovery(api.client, [ROUTES], told.append, 1)
    there, gone, same = Answer(200, discovered(ROUTES), {}), Answer(200, discovered(), {}), Answer(304, {}, {})
    api.answers["GET /apis"] = [there, gone, there, gone, same]
    for _ in range(4):
        assert await discovery.look() == frozenset({ROUTES})
    assert await discovery.look() == frozenset()
    assert told == [frozenset({ROUTES}), frozenset()]


async def test_discovery_outlives_an_outage(api: FakeApi) -> None:
    told: list[frozenset[Resource]] = []
    api.answers["GET /apis"] = [ApiUnavailable("down"), ApiRejected("no", 403), Answer(200, discovered(ROUTES), {})]
    task = asyncio.create_task(Discovery(api.client, [ROUTES], told.append, 0.001).run())
    async with asyncio.timeout(5):
        while not told:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


KIND = GroupKind("", "Service")


LIST = "GET /api/v1/namespaces/ns/services"


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def lookup(api: FakeApi, waiting: int = 0, clock: Clock | None = None) -> Lookup:
    return Lookup(Objects(api.client, {KIND: SERVICES}), lambda _: waiting, clock or Clock())


def services(*names: str) -> Answer:
    return Answer(200, {"items": [{"metadata": {"name": name}} for name in names]}, {})


async def test_one_name_is_read_alone(api: FakeApi) -> None:
    api.answers["GET /api/v1/namespaces/ns/services/a"] = [Answer(200, {"metadata": {"name": "a"}}, {})]
    assert await lookup(api).find(KIND, "ns", "a", 100) == {"name": "a"}


async def test_a_name_nobody_has_is_none(api: FakeApi) -> None:
    api.answers["GET /api/v1/namespaces/ns/services/a"] = [ApiRejected("not found", 404)]
    assert await lookup(api).find(KIND, "ns", "a", 100) is None


async def test_many_names_asked_together_are_answered_by_one_list(api: FakeApi) -> None:
    api.answers[LIST] = [services("b")]
    found = lookup(api)
    answers = await asyncio.gather(*(found.find(KIND, "ns", name, 100) for name in ("a", "b", "c", "b")))
    assert answers == [None, {"name": "b"}, None, {"name": "b"}]
    assert api.paths() == [LIST]


async def test_one_name_is_asked_for_by_a_list_where_others_will_be_asked_for_soon(api: FakeApi) -> None:
    api.answers[LIST] = [services()]
    found = lookup(api, waiting=10)
    assert [await found.find(KIND, "ns", name, 90) for name in "abc"] == [None] * 3
    assert api.paths() == [LIST]


async def test_a_crowded_namespace_is_not_listed_for_a_few_names(api: FakeApi) -> None:
    api.answers[LIST] = [services(*(f"x{number}" for number in range(1000)))]
    found, clock = lookup(api), 100
    for _ in range(2):
        clock += 1
        await asyncio.gather(*(found.find(KIND, "ns", name, clock) for name in ("a", "b", "c")))
    assert api.paths().count(LIST) == 1
    assert api.paths().count("GET /api/v1/namespaces/ns/services/a") == 1


async def test_a_list_answers_only_who_had_to_know_before_it_was_sent(api: FakeApi) -> None:
    api.answers[LIST] = [services()]
    clock = Clock()
    found = lookup(api, 10, clock)
    assert await found.find(KIND, "ns", "a", 99) is None
    clock.now = 101
    assert await found.find(KIND, "ns", "b", 100) is None
    assert api.paths() == [LIST]
    api.answers[LIST] = [services("b")]
    assert await found.find(KIND, "ns", "b", 100.5) == {"name": "b"}
    assert api.paths() == [LIST, LIST]


async def test_a_list_under_way_is_waited_for_by_who_had_to_know_before_it_was_sent_and_by_nobody_else(api: FakeApi) -> None:
    answered, clock = asyncio.Event(), Clock()

    async def request(method: str, path: str, **more: Any) -> Answer:
        api.asked.append((f"{method} {path}", more))
        await answered.wait()
        return services()

    api.request = request  # type: ignore[method-assign]
    found = lookup(api, 10, clock)
    asks = [asyncio.create_task(found.find(KIND, "ns", "a", 99))]
    while not api.asked:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    clock.now = 101
    asks += [asyncio.create_task(found.find(KIND, "ns", name, since)) for name, since in (("b", 99.0), ("c", 100.5))]
    await asyncio.sleep(0.02)
    assert api.paths() == [LIST, LIST]
    answered.set()
    assert await asyncio.gather(*asks) == [None] * 3
    assert api.paths() == [LIST, LIST]


async def test_that_something_is_there_is_read_anew(api: FakeApi) -> None:
    api.answers[LIST] = [services("a", "b")]
    found = lookup(api, waiting=10)
    assert await found.find(KIND, "ns", "a", 99) == {"name": "a"}
    assert await found.find(KIND, "ns", "b", 99) == {"name": "b"}
    assert api.paths() == [LIST, LIST]


async def test_a_list_is_believed_for_a_moment_only(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answers[LIST] = [services()]
    clock = Clock()
    found = lookup(api, 10, clock)
    monkeypatch.setattr(lookup_module, "_FRESH_SECONDS", 0.01)
    await found.find(KIND, "ns", "a", 99)
    assert found._listed
    clock.now += 1
    await found.find(KIND, "ns", "b", 99)
    assert api.paths() == [LIST, LIST]
    await asyncio.sleep(0.05)
    assert not found._listed


async def test_a_question_after_the_read_began_is_read_anew(api: FakeApi) -> None:
    found = lookup(api)
    await found.find(KIND, "ns", "a", 100)
    await found.find(KIND, "ns", "a", 100)
    assert len(api.asked) == 2


async def test_an_error_reaches_everybody_who_asked(api: FakeApi) -> None:
    api.answers["GET /api/v1/namespaces/ns/services"] = [ApiUnavailable("down")]
    found = lookup(api)
    answers = await asyncio.gather(*(found.find(KIND, "ns", name, 100) for name in "abc"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ApiUnavailable] * 3


async def test_a_list_goes_through_all_pages(api: FakeApi) -> None:
    path = "GET /api/v1/namespaces/ns/services"
    first = Answer(200, {"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "next"}}, {})
    api.answers[path] = [first, Answer(200, {"items": [{"metadata": {"name": "b"}}], "metadata": {}}, {})]
    listed = await Objects(api.client, {KIND: SERVICES}).list_metadata(KIND, "ns")
    assert [item["name"] for item in listed] == ["a", "b"]
    assert api.asked[1][1]["params"]["continue"] == "next"


@pytest.mark.parametrize("status", [404, 409])
async def test_deleting_what_is_gone_or_replaced_is_no_error(api: FakeApi, status: int) -> None:
    api.answers["DELETE /api/v1/namespaces/ns/services/web"] = [ApiRejected("gone", status)]
    assert not await Objects(api.client, {KIND: SERVICES}).delete(KIND, "ns", "web", "uid")
    assert api.asked[0][1]["body"]["preconditions"] == {"uid": "uid"}


@pytest.mark.parametrize("force", [True, False])
async def test_an_apply_names_the_manager_and_forces_only_when_told(api: FakeApi, force: bool) -> None:
    path = "PATCH /api/v1/namespaces/ns/services/web"
    api.answers[path] = [Answer(201, {"metadata": {"uid": "u"}}, {})]
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "ns"}}
    applied = await Objects(api.client, {KIND: SERVICES}).apply(manifest, force=force)
    assert applied == ({"uid": "u"}, True)
    params = api.asked[0][1]["params"]
    assert params["fieldManager"] == "perfpolicy"
    assert params["fieldValidation"] == "Strict"
    assert ("force" in params) is force


async def test_a_status_is_written_for_one_uid(api: FakeApi) -> None:
    path = "PATCH /apis/perfpolicy.io/v1alpha1/namespaces/ns/performancepolicies/web/status"
    assert await StatusWriter(api.client).write(KEY, "u", {"a": 1})
    assert api.asked[0][0] == path
    assert api.asked[0][1]["body"]["metadata"] == {"name": "web", "uid": "u"}
    api.answers[path] = [ApiRejected("not found", 404)]
    assert not await StatusWriter(api.client).write(KEY, "u", {})
    api.answers[path] = [ApiRejected("another one, or written just now", 409)]
    with pytest.raises(ApiUnavailable, match="another one"):
        await StatusWriter(api.client).write(KEY, "u", {})
    api.answers[path] = [ApiRejected("invalid", 422)]
    with pytest.raises(ApiRejected):
        await StatusWriter(api.client).write(KEY, "u", {})


NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
NOTICE = Notice(KEY, "u", "ProgrammedFalse", "no", warning=True)


def test_a_notice_is_the_same_within_an_hour_only() -> None:
    assert identity_of(NOTICE, NOW) == identity_of(NOTICE, NOW + timedelta(minutes=20))
    assert identity_of(NOTICE, NOW) != identity_of(NOTICE, NOW + timedelta(hours=1))
    assert identity_of(NOTICE, NOW) != identity_of(NOTICE._replace(note="other"), NOW)


def test_an_event_says_what_about_whom() -> None:
    event = event_object(NOTICE, "name", "pod-1", NOW, NOW, 1)
    assert event["regarding"] == {
        "apiVersion": "perfpolicy.io/v1alpha1",
        "kind": "PerformancePolicy",
        "namespace": "ns",
        "name": "web",
        "uid": "u",
    }
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "ProgrammedFalse", "no")
    assert event["eventTime"] == "2026-01-01T12:30:00.000000Z"
    assert "series" not in event


def test_a_repeated_event_becomes_a_series_and_a_long_note_is_cut() -> None:
    event = event_object(NOTICE._replace(note="x" * 5000), "name", "pod-1", NOW, NOW + timedelta(seconds=5), 3)
    assert event["series"] == {"count": 3, "lastObservedTime": "2026-01-01T12:30:05.000000Z"}
    assert len(event["note"]) == 1000
    assert event["note"].endswith("…")


async def test_repeats_reuse_their_object_and_an_unwritten_event_harms_nobody(api: FakeApi) -> None:
    writer = EventWriter(api.client, "pod-1")
    task = asyncio.create_task(writer.run())
    for notice in (NOTICE, NOTICE, NOTICE._replace(reason="Other")):
        writer.emit(notice)
    async with asyncio.timeout(5):
        while len(api.asked) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert api.paths()[0] == api.paths()[1] != api.paths()[2]
    api.answers[api.paths()[0]] = [ApiUnavailable("down")]
    writer.emit(NOTICE)
    writer.emit(NOTICE._replace(reason="Third"))
    async with asyncio.timeout(5):
        while len(api.asked) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_full_queue_drops_instead_of_blocking(
    api: FakeApi, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_QUEUED", 1)
    writer = EventWriter(api.client, "pod-1")
    for _ in range(3):
        writer.emit(NOTICE)
    task = asyncio.create_task(writer.run())
    async with asyncio.timeout(5):
        while not caplog.records:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(api.asked) == 1
    assert [vars(record)["dropped"] for record in caplog.records] == [2]
