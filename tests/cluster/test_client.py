"""The client against a real HTTP server: what is sent, and what errors become."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.http_writer import StreamWriter
from aiohttp.test_utils import TestServer
from kubernetes.aio import client
from prometheus_client import REGISTRY

from perfpolicy.cluster import client as client_module
from perfpolicy.cluster.client import APPLY, METADATA, ApiClient, load_configuration
from perfpolicy.cluster.pace import Pace
from perfpolicy.errors import ApiRejected, ApiUnavailable, NotLeading, SettingsError
from perfpolicy.settings import Settings

Handler = Callable[[web.Request], Any]


class Server:
    """A server that remembers requests and answers as told."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.bodies: list[str] = []
        self.answer: Handler = lambda _: web.json_response({})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        self.bodies.append(await request.text())
        answer = self.answer(request)
        found = await answer if hasattr(answer, "__await__") else answer
        assert isinstance(found, web.StreamResponse)
        return found


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def configuration(server: Server) -> AsyncIterator[Any]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    running = TestServer(app)
    await running.start_server()
    yield client.Configuration(host=str(running.make_url("")).rstrip("/"), api_key={"BearerToken": "Bearer secret"})
    await running.close()


@pytest.fixture
async def api(configuration: Any) -> AsyncIterator[ApiClient]:
    connected = ApiClient(configuration, timeout=5)
    yield connected
    await connected.close()


async def test_a_request_carries_body_type_and_token(api: ApiClient, server: Server) -> None:
    server.answer = lambda _: web.json_response({"metadata": {"name": "x"}}, status=201)
    answer = await api.request("PATCH", "/api/v1/x", params={"force": "true"}, body={"a": 1}, content_type=APPLY, accept=METADATA)
    request = server.seen[0]
    assert (answer.status, answer.body) == (201, {"metadata": {"name": "x"}})
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.headers["Content-Type"] == APPLY
    assert request.headers["Accept"] == METADATA
    assert request.headers["User-Agent"].startswith("perfpolicy/")
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.query == {"force": "true"}
    assert server.bodies == ['{"a": 1}']


async def test_at_debug_each_request_and_its_answer_are_logged(
    api: ApiClient, server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("DEBUG", "perfpolicy")
    server.answer = lambda _: web.json_response({}, status=404)
    with pytest.raises(ApiRejected):
        await api.request("GET", "/api/v1/x")

    async def away(*_: Any, **__: Any) -> None:
        raise OSError("away")

    monkeypatch.setattr(api._rest, "request", away)
    with pytest.raises(ApiUnavailable):
        await api.request("PATCH", "/api/v1/y")
    said = [(vars(record)["request"], vars(record)["code"]) for record in caplog.records if record.levelname == "DEBUG"]
    assert said == [("GET /api/v1/x", 404), ("PATCH /api/v1/y", "error")]


async def test_watches_take_no_connection_from_requests(configuration: Any, server: Server) -> None:
    async def never_ends(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"kind": "x"})
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type": "BOOKMARK"}\n')
        await asyncio.Event().wait()
        return response

    server.answer = never_ends
    configuration.connection_pool_maxsize = 2
    api = ApiClient(configuration, timeout=5)
    watches = [api.stream("/x", params={"watch": "true"}, silence=60) for _ in range(4)]
    try:
        assert [(await anext(watch))["type"] for watch in watches] == ["BOOKMARK"] * 4
        assert (await api.request("GET", "/x")).body == {"kind": "x"}
    finally:
        await api.close()


async def test_writes_keep_the_pace_and_reads_do_not(configuration: Any) -> None:
    pace = Pace(2.0, lambda: 0.0)
    api = ApiClient(configuration, timeout=5, pace=pace)
    try:
        await api.request("GET", "/x")
        assert pace.take() == 0
        await api.request("PATCH", "/x", body={})
    finally:
        await api.close()
    assert pace.take() == 0.5


async def test_an_answer_without_a_body_is_empty(api: ApiClient, server: Server) -> None:
    server.answer = lambda _: web.Response(status=304)
    assert (await api.request("GET", "/apis")).body == {}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 401])
async def test_what_may_pass_is_unavailable(api: ApiClient, server: Server, status: int) -> None:
    server.answer = lambda _: web.json_response({"kind": "Status", "message": "wait"}, status=status, headers={"Retry-After": "7"})
    with pytest.raises(ApiUnavailable, match="wait") as caught:
        await api.request("GET", "/x")
    assert caught.value.retry_after == (7 if status != 401 else None)


@pytest.mark.parametrize(
    ("status", "reason"), [(400, "BadRequest"), (403, "Forbidden"), (404, "NotFound"), (409, "Conflict"), (422, "Invalid")]
)
async def test_what_will_not_pass_is_rejected_with_its_reason(api: ApiClient, server: Server, status: int, reason: str) -> None:
    server.answer = lambda _: web.json_response({"message": "no", "reason": reason}, status=status)
    with pytest.raises(ApiRejected, match="GET /x") as caught:
        await api.request("GET", "/x")
    assert (caught.value.status, caught.value.reason) == (status, reason)


async def test_garbage_is_unavailable(api: ApiClient, server: Server) -> None:
    server.answer = lambda _: web.Response(text="<html>")
    with pytest.raises(ApiUnavailable, match="not JSON"):
        await api.request("GET", "/x")
    server.answer = lambda _: web.Response(text="<html>no</html>", status=418)
    with pytest.raises(ApiRejected, match="<html>no"):
        await api.request("GET", "/x")


async def test_what_is_nested_too_deeply_is_an_error_of_ours(api: ApiClient, server: Server) -> None:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000 + "\n"
    server.answer = lambda _: web.Response(text=deep)
    with pytest.raises(ApiUnavailable, match="nested too deeply"):
        await api.request("GET", "/x")
    with pytest.raises(ApiUnavailable, match="nested too deeply"):
        _ = [event async for event in api.stream("/x", params={}, silence=60)]
    server.answer = lambda _: web.Response(text=deep, status=418)
    with pytest.raises(ApiRejected, match="418"):
        await api.request("GET", "/x")
    body: dict[str, Any] = {}
    for _ in range(100_000):
        body = {"a": body}
    with pytest.raises(ApiRejected, match="not sent"):
        await api.request("PATCH", "/x", body=body)


async def test_a_refused_connection_is_unavailable() -> None:
    nobody = ApiClient(client.Configuration(host="http://127.0.0.1:9"), timeout=5)
    with pytest.raises(ApiUnavailable, match="GET /x"):
        await nobody.request("GET", "/x")
    with pytest.raises(ApiUnavailable, match="watch /x"):
        _ = [event async for event in nobody.stream("/x", params={}, silence=60)]
    await nobody.close()


async def test_a_stream_is_cut_into_lines_however_it_arrives(api: ApiClient, server: Server) -> None:
    long = "x" * 300_000

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in (b'{"type": "ADD', b'ED"}\n{"type": "MODIFIED"}\n\n{"text": "', long.encode(), b'"}\n'):
            await response.write(part)
        return response

    server.answer = answer
    events = [event async for event in api.stream("/x", params={"watch": "true"}, silence=60)]
    assert [event.get("type") for event in events] == ["ADDED", "MODIFIED", None]
    assert events[2]["text"] == long


async def test_a_refused_stream_raises_like_a_request(api: ApiClient, server: Server) -> None:
    server.answer = lambda _: web.json_response({"message": "gone"}, status=410)
    with pytest.raises(ApiRejected) as caught:
        _ = [event async for event in api.stream("/x", params={}, silence=60)]
    assert caught.value.status == 410


@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST", "DELETE"])
async def test_a_replica_that_does_not_lead_reads_and_watches_but_writes_nothing(configuration: Any, server: Server, method: str) -> None:
    standby = ApiClient(configuration, timeout=5, identity="pod-1_ab", may_write=lambda: False)
    with pytest.raises(NotLeading, match=f"{method} /x: not sent"):
        await standby.request(method, "/x", body={"a": 1})
    await standby.request("GET", "/x")
    _ = [event async for event in standby.stream("/x", params={"watch": "true"}, silence=60)]
    assert [request.method for request in server.seen] == ["GET", "GET"]
    assert server.seen[0].headers["User-Agent"].endswith(" (pod-1_ab)")
    await standby.close()


async def test_a_write_that_waited_for_a_connection_while_the_lease_was_lost_is_not_sent(configuration: Any, server: Server) -> None:
    leading, free = True, asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        await free.wait()
        return web.json_response({})

    server.answer = slow
    configuration.connection_pool_maxsize = 1
    replica = ApiClient(configuration, timeout=5, may_write=lambda: leading)
    first = asyncio.create_task(replica.request("PATCH", "/first", body={}))
    async with asyncio.timeout(5):
        while not server.seen:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    second = asyncio.create_task(replica.request("PATCH", "/second", body={}))
    await asyncio.sleep(0)
    leading = False
    free.set()
    assert (await first).status == 200
    with pytest.raises(NotLeading):
        await second
    assert [request.path for request in server.seen] == ["/first"]
    await replica.close()


@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST", "DELETE"])
async def test_a_write_whose_lease_is_lost_before_its_first_byte_is_not_sent(
    configuration: Any, server: Server, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    # The head is kept back until the body is written, and a process may be stopped in between.
    leading, prepare = True, StreamWriter.write_headers

    async def lose(writer: StreamWriter, *of: Any) -> None:
        nonlocal leading
        await prepare(writer, *of)
        leading = False

    replica = ApiClient(configuration, timeout=5, may_write=lambda: leading)
    with monkeypatch.context() as patched:
        patched.setattr(StreamWriter, "write_headers", lose)
        with pytest.raises(NotLeading, match=f"{method} /x: not sent"):
            await replica.request(method, "/x", body={"a": 1})
    assert server.seen == []
    leading = True
    assert (await replica.request(method, "/x", body={"a": 1})).status == 200, "and nothing of it is left in the connection"
    assert server.bodies == ['{"a": 1}']
    await replica.close()


def counted(verb: str, kind: str, code: str) -> float:
    return REGISTRY.get_sample_value("perfpolicy_api_requests_total", {"verb": verb, "kind": kind, "code": code}) or 0.0


async def test_every_request_is_counted_by_verb_kind_and_code(api: ApiClient, server: Server) -> None:
    names = [
        ("patch", "virtualservices/status", "200"),
        ("list", "services", "404"),
        ("watch", "services", "200"),
        ("get", "pods", "error"),
    ]
    before = [counted(*name) for name in names]
    await api.request("PATCH", "/apis/networking.istio.io/v1/namespaces/ns/virtualservices/web/status", body={})
    _ = [event async for event in api.stream("/api/v1/services", params={"watch": "true"}, silence=60)]
    server.answer = lambda _: web.json_response({"message": "no"}, status=404)
    with pytest.raises(ApiRejected):
        await api.request("GET", "/api/v1/services")
    nobody = ApiClient(client.Configuration(host="http://127.0.0.1:9"), timeout=5)
    with pytest.raises(ApiUnavailable):
        await nobody.request("GET", "/api/v1/namespaces/ns/pods/web")
    assert [counted(*name) for name in names] == [count + 1 for count in before]
    assert api.answered < 5
    assert nobody.answered == float("inf")
    await nobody.close()


async def test_what_is_forbidden_is_told_by_verb_and_kind_for_a_while(
    api: ApiClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda _: web.json_response({"message": "deployments is forbidden"}, status=403)
    with pytest.raises(ApiRejected):
        await api.request("PATCH", "/apis/apps/v1/namespaces/ns/deployments/web", body={})
    with pytest.raises(ApiRejected):
        _ = [event async for event in api.stream("/api/v1/services", params={"watch": "true"}, silence=60)]
    assert api.problems() == {"patch deployments": "deployments is forbidden", "watch services": "deployments is forbidden"}
    monkeypatch.setattr(client_module, "_REFUSAL_SECONDS", 0.0)
    assert api.problems() == {}


async def test_a_watch_that_is_silent_for_long_is_ended_quietly_and_one_that_breaks_off_is_not(configuration: Any, server: Server) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type": "ADDED"}\n')
        if request.path == "/broken":
            assert request.transport is not None
            request.transport.abort()
        await asyncio.sleep(1)
        return response

    server.answer = answer
    api = ApiClient(configuration, timeout=5)
    assert [event async for event in api.stream("/quiet", params={}, silence=0.1)] == [{"type": "ADDED"}]
    with pytest.raises(ApiUnavailable):
        _ = [event async for event in api.stream("/broken", params={}, silence=0.1)]
    await api.close()


async def test_without_any_configuration_the_error_says_what_to_set(tmp_path: Any) -> None:
    with pytest.raises(SettingsError, match="PERFPOLICY_KUBECONFIG"):
        await load_configuration(Settings(kubeconfig=tmp_path / "missing"))
