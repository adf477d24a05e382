"""What kopf is told, what it hands on, and what the log says."""

import asyncio
import itertools
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import kopf
import pytest
from kopf._cogs.structs import references
from kopf._cogs.structs.references import Insights

from perfpolicy.cluster.client import Credentials
from perfpolicy.cluster.resource import Resource
from perfpolicy.cluster.status import POLICIES
from perfpolicy.handlers import events
from perfpolicy.handlers.events import EndlessBackoff, KopfThread, connection, kopf_settings, registry
from perfpolicy.handlers.logs import JsonFormatter, TextFormatter
from perfpolicy.runtime import CLASSES, Runtime
from perfpolicy.settings import Settings


def test_kopf_writes_nothing_and_never_gives_up() -> None:
    settings = kopf_settings(45)
    assert settings.peering.standalone
    assert not settings.posting.enabled
    assert isinstance(settings.networking.error_backoffs, EndlessBackoff)


def test_kopf_notices_a_silent_watch_within_a_minute() -> None:
    watching = kopf_settings(Settings().watch_timeout).watching
    assert watching.server_timeout is not None
    assert watching.server_timeout < watching.inactivity_timeout < 60


def test_kopf_copies_nothing_to_compare_it() -> None:
    storage = kopf_settings(45).persistence.diffbase_storage
    body = kopf.Body({"metadata": {"annotations": {"kopf.zalando.org/last-handled-configuration": "{}"}}, "spec": {"a": 1}})
    assert storage.build(body=body, extra_fields=["status"]) == {}
    assert storage.fetch(body=body) is None


def test_kopf_asks_with_our_credentials_and_for_nothing_compressed() -> None:
    found = connection(Credentials("https://api", verify=True, ca_file="/ca", certificate_file="", key_file="", token="secret"))
    assert (found.server, found.insecure, found.ca_path, found.certificate_path) == ("https://api", False, "/ca", None)
    assert found.as_http_headers() == {"Authorization": "Bearer secret", "Accept-Encoding": "identity"}


def test_the_backoff_never_ends_stays_within_bounds_and_starts_anew() -> None:
    backoff = EndlessBackoff()
    pauses = list(itertools.islice(backoff, 200))
    assert all(0.5 <= pause <= 30 for pause in pauses)
    assert pauses[-1] > 10
    assert next(iter(backoff)) <= 1


class FakeRuntime:
    """Remembers what it is handed."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.settings = settings or Settings()
        self.serving: frozenset[Resource] = frozenset()

    def __getattr__(self, name: str) -> Any:
        return lambda raw: self.seen.append((name, raw))


async def test_events_are_handed_on_by_kind_and_type() -> None:
    runtime = FakeRuntime()
    handlers = registry(cast(Runtime, runtime), asyncio.get_running_loop())
    functions = {handler.id: handler.fn for handler in handlers._watching.get_all_handlers()}
    assert len(functions) == 2
    for name, fn in sorted(functions.items()):
        for kind in (None, "ADDED", "MODIFIED", "DELETED"):
            await cast(Any, fn)(event={"type": kind, "object": {"name": name}})
    await asyncio.sleep(0)
    assert [what for what, _ in runtime.seen] == [*["class_seen"] * 3, "class_gone", *["policy_seen"] * 3, "policy_gone"]


async def test_only_event_handlers_are_registered_so_kopf_annotates_nothing() -> None:
    handlers = registry(cast(Runtime, FakeRuntime()), asyncio.get_running_loop())
    assert isinstance(handlers, kopf.OperatorRegistry)
    assert not handlers._changing.get_all_handlers()
    assert not handlers._spawning.get_all_handlers()
    assert not handlers._indexing.get_all_handlers()


async def test_classes_from_a_file_are_not_watched() -> None:
    runtime = FakeRuntime(settings=Settings(class_file=Path("classes.yaml")))
    (handler,) = registry(cast(Runtime, runtime), asyncio.get_running_loop())._watching.get_all_handlers()
    assert "policy" in str(handler.id)


class Started:
    """Stands for kopf.operator: remembers each start, and runs until told to stop."""

    def __init__(self) -> None:
        self.count = self.ended = 0

    async def __call__(self, *, settings: kopf.OperatorSettings, stop_flag: asyncio.Event, **_: Any) -> None:
        assert settings.scanning.disabled, "kopf's own scanning needs rights on every CRD"
        self.count += 1
        await stop_flag.wait()
        self.ended += 1


async def test_kopf_is_started_when_our_kinds_are_served_and_anew_when_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_LOOK_SECONDS", 0.001)
    started, runtime = Started(), FakeRuntime()
    monkeypatch.setattr(kopf, "operator", started)
    thread = KopfThread(cast(Runtime, runtime), asyncio.get_running_loop())
    thread.start()

    async def until(count: int, ended: int) -> None:
        async with asyncio.timeout(5):
            while (started.count, started.ended) != (count, ended):  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    await asyncio.sleep(0.02)
    assert started.count == 0, "nothing is served"
    runtime.serving = frozenset({POLICIES})
    await until(1, 0)
    runtime.serving = frozenset({POLICIES, CLASSES})
    await until(2, 1)
    runtime.serving = frozenset()
    await until(2, 2)
    runtime.serving = frozenset({POLICIES})
    await until(3, 2)
    await thread.stop(5)
    assert (started.ended, thread.alive) == (3, False)


async def test_kopf_that_did_not_find_a_kind_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CRD was made a moment ago: our discovery shows it, what kopf asks does not yet."""
    monkeypatch.setattr(events, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(events, "_PAUSE_MIN", 0.001)
    starts: list[int] = []
    hears = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def operator(*, insights: Insights, stop_flag: asyncio.Event, **_: Any) -> None:
        starts.append(len(starts))
        found = (POLICIES,) if len(starts) < 3 else (POLICIES, CLASSES)
        insights.watched_resources.update(references.Resource(kind.group, kind.version, kind.plural) for kind in found)
        insights.ready_resources.set()
        if len(starts) == 3:
            loop.call_soon_threadsafe(hears.set)
        await stop_flag.wait()

    runtime = FakeRuntime()
    runtime.serving = frozenset({POLICIES, CLASSES})
    monkeypatch.setattr(kopf, "operator", operator)
    thread = KopfThread(cast(Runtime, runtime), loop)
    thread.start()
    await asyncio.wait_for(hears.wait(), 5)
    await asyncio.sleep(0.05)
    assert len(starts) == 3, "one that hears everything goes on"
    await thread.stop(5)
    assert not thread.alive


@pytest.mark.parametrize(("steady", "pauses"), [(-1.0, "short"), (60.0, "growing")])
async def test_kopf_is_started_again_and_its_pauses_grow_only_while_it_keeps_ending(
    steady: float, pauses: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ran for longer than `steady` seconds each time, or not."""
    waited: list[float] = []
    runtime = FakeRuntime()
    runtime.serving = frozenset({POLICIES})
    thread = KopfThread(cast(Runtime, runtime), asyncio.get_running_loop())

    async def end_at_once(serving: frozenset[Resource]) -> None:
        raise RuntimeError("kopf ended")

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        if len(waited) == 6:
            thread._stop.set()
        return False

    monkeypatch.setattr(events, "_STEADY", steady)
    monkeypatch.setattr(thread, "_operate", end_at_once)
    monkeypatch.setattr(thread._stop, "wait", wait)
    await asyncio.to_thread(thread._run)
    assert len(waited) == 6
    assert (max(waited) <= 1) is (pauses == "short")


def record(**extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "perfpolicy.x", "levelname": "INFO", "msg": "applied %s", "args": ("it",), "created": 0.0})
    vars(made).update(extra)
    return made


def test_json_lines_keep_bound_fields_apart() -> None:
    line = json.loads(JsonFormatter().format(record(policy="ns/web", writes=3)))
    assert line == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "info",
        "logger": "perfpolicy.x",
        "event": "applied it",
        "policy": "ns/web",
        "writes": 3,
    }


def test_a_line_break_in_a_field_stays_within_its_line() -> None:
    assert "\n" not in JsonFormatter().format(record(problem="a\nb"))


def test_text_lines_show_fields_and_tracebacks() -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        text = TextFormatter().format(record(policy="ns/web", exc_info=(type(error), error, error.__traceback__)))
    assert text.startswith("00:00:00.000 info    applied it policy=ns/web\n")
    assert "ValueError: no" in text


async def test_kopf_is_told_who_it_is_for_a_containers_user_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    async def operator(**options: Any) -> None:
        told.update(options)

    monkeypatch.setattr(kopf, "operator", operator)
    runtime = SimpleNamespace(settings=Settings())
    await KopfThread(cast(Runtime, runtime), asyncio.get_running_loop())._operate(frozenset({POLICIES}))
    assert told["identity"]
