"""One query against a real HTTP server that misbehaves in every way seen of backends."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from perfpolicy.errors import MetricsUnavailable
from perfpolicy.metrics.client import PrometheusBackend
from tests import builders as a

Answer = tuple[int, bytes, float]
SERIES = {"metric": {"__name__": "perfpolicy:errors:ratio"}, "values": ((1.0, 2.0),)}


def good(*results: Any, **more: Any) -> Answer:
    """A backend's successful answer, with values as text."""
    written = [each | {"values": [[time, f"{value}"] for time, value in each["values"]]} for each in results]
    return 200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": written}, **more}).encode(), 0


class Server(ThreadingHTTPServer):
    """Answers every request with `answer`, after its delay in seconds unless the test is over by then, and keeps the requests."""

    daemon_threads = True
    answer: Answer = good()
    seen: list[Any]
    forms: list[str]
    """Bodies of those that were no GET."""
    answers = 0
    over: threading.Event

    def requested(self, index: int = -1) -> dict[str, str]:
        """The query parameters of a request."""
        return {key: values[0] for key, values in parse_qs(urlsplit(self.seen[index].path).query).items()}


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.forms.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.do_GET()

    def do_GET(self) -> None:
        self.server.seen.append(self)
        code, body, delay = self.server.answer
        self.server.over.wait(delay)
        self.server.answers += 1
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Quiet."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a free loopback port."""
    server = Server(("127.0.0.1", 0), _Handler)
    server.seen, server.forms, server.over = [], [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


Connect = Callable[..., PrometheusBackend]


@pytest.fixture
def connect(server: Server) -> Connect:
    """A backend at the server; keyword arguments change the provider."""
    return lambda **changes: PrometheusBackend(a.a_provider(address=f"http://127.0.0.1:{server.server_port}", **changes))


def test_the_result_of_a_query(server: Server, connect: Connect) -> None:
    server.answer = good(SERIES)
    assert connect().query('up{a="b"}[2m]') == [SERIES]
    assert server.requested() == {"query": 'up{a="b"}[2m]'}
    assert server.forms == []
    assert server.seen[0].path.startswith("/api/v1/query?")


def test_a_query_too_long_for_an_address_travels_as_a_form(server: Server, connect: Connect) -> None:
    server.answer = good(SERIES)
    query = f'up{{a="{"b&c=" * 1200}"}}'
    assert connect(tenant="t").query(query) == [SERIES]
    assert server.requested() == {}
    assert parse_qs(server.forms[0]) == {"query": [query]}
    assert server.seen[0].headers["X-Scope-OrgID"] == "t"


def test_an_address_with_a_path_and_a_slash(server: Server) -> None:
    server.answer = good()
    PrometheusBackend(a.a_provider(address=f"http://127.0.0.1:{server.server_port}/prometheus/")).query("up")
    assert server.seen[0].path.startswith("/prometheus/api/v1/query?")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param((503, b"overloaded", 0), "503", id="503"),
        pytest.param((400, b'{"status":"error"}', 0), "400", id="400"),
        pytest.param((429, b"", 0), "429", id="429"),
        pytest.param((200, b"<html>login</html>", 0), "not a query result", id="a login page"),
        pytest.param((200, b"", 0), "not a query result", id="nothing"),
        pytest.param((200, b"[]", 0), "not a query result", id="a list"),
        pytest.param((200, b"null", 0), "not a query result", id="null"),
        pytest.param((200, b'{"data": {}}', 0), "not a query result", id="no result"),
        pytest.param((200, b'{"data": {"result": {}}}', 0), "not a query result", id="an object as result"),
        pytest.param((200, b"[" * 100_000, 0), "not a query result", id="deep nesting"),
        pytest.param((200, b'{"warnings"', 0), "not a query result", id="broken off"),
        pytest.param((200, b"\xff\xfe\x00", 0), "not a query result", id="bytes"),
    ],
)
def test_every_bad_answer_is_metrics_unavailable(server: Server, connect: Connect, answer: Answer, message: str) -> None:
    server.answer = answer
    with pytest.raises(MetricsUnavailable, match=message) as caught:
        connect().query("up")
    assert "127.0.0.1" in str(caught.value)
    assert len(server.seen) == 1, "a retry belongs to the next cycle"


def test_a_partial_answer_is_not_taken_for_the_whole(server: Server, connect: Connect) -> None:
    server.answer = good(SERIES, warnings=["store 10.0.0.1 did not answer"])
    with pytest.raises(MetricsUnavailable, match=r"partial.*store 10\.0\.0\.1"):
        connect().query("up")


def test_the_word_warnings_in_a_label_is_no_warning(server: Server, connect: Connect) -> None:
    series = {"metric": {"warnings": "x"}, "values": ()}
    server.answer = good(series)
    assert connect().query("up") == [series]


def test_infos_are_no_warnings(server: Server, connect: Connect) -> None:
    server.answer = good(SERIES, infos=["metric might not be a counter"], warnings=[])
    assert connect().query("up") == [SERIES]


def test_a_slow_answer(server: Server, connect: Connect) -> None:
    server.answer = (*good()[:2], 5.0)
    with pytest.raises(MetricsUnavailable, match="ReadTimeout"):
        connect(timeout=timedelta(milliseconds=100)).query("up")
    assert (len(server.seen), server.answers) == (1, 0)


def test_nobody_listens() -> None:
    with serving() as gone:
        port = gone.server_port
    with pytest.raises(MetricsUnavailable, match="ConnectionError"):
        PrometheusBackend(a.a_provider(address=f"http://127.0.0.1:{port}")).query("up")


def test_tenant_and_token_are_sent(server: Server, connect: Connect, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    backend = connect(tenant="team-a", auth_file=str(token))
    backend.query("up")
    token.write_text("rotated\n")
    backend.query("up")
    assert [request.headers["Authorization"] for request in server.seen] == ["Bearer first", "Bearer rotated"]
    assert {request.headers["X-Scope-OrgID"] for request in server.seen} == {"team-a"}


def test_without_tenant_and_token_nothing_is_sent(server: Server, connect: Connect) -> None:
    connect().query("up")
    assert server.seen[0].headers["Authorization"] is None
    assert server.seen[0].headers["X-Scope-OrgID"] is None


def test_an_unreadable_token_file_names_the_file(connect: Connect, server: Server, tmp_path: Path) -> None:
    with pytest.raises(MetricsUnavailable, match=r"token file .*absent"):
        connect(auth_file=str(tmp_path / "absent")).query("up")
    assert server.seen == []


def test_importing_the_package_does_not_import_the_client_library() -> None:
    import subprocess
    import sys

    code = "import sys, perfpolicy.metrics.source; sys.exit('prometheus_api_client' in sys.modules or 'requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
