"""An address that stands before a real Prometheus and can stop being one: what a policy's class points at when its source must fail.

It listens on this machine only, unless told another address. No shared component is stopped for it.
"""

import json
import threading
import urllib.error
import urllib.request
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mode(Enum):
    """How requests are answered."""

    PASS = "by the real Prometheus"
    REFUSE = "503"
    GARBAGE = "200, and something that is no JSON"
    SILENT = "not at all"
    AHEAD = "by the real Prometheus, as if its clock were ten minutes ahead"


class PrometheusStub:
    """Use as a context manager; `mode` may be set at any time. SILENT requests are let go when it changes."""

    def __init__(self, upstream: str, mode: Mode, host: str = "127.0.0.1") -> None:
        self.asked_as: set[tuple[str, str]] = set()
        """Tenant and Authorization of the requests so far; empty texts where they had none."""
        self._upstream = upstream
        self._mode = mode
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer((host, 0), self._handler())

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self._server.server_address[0]!s}:{self._server.server_port}"

    @property
    def mode(self) -> Mode:
        """How requests are answered now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        with self._changed:
            self._mode = mode
            self._changed.notify_all()

    def __enter__(self) -> "PrometheusStub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mode = Mode.REFUSE
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, bytes] | None:
        """Status and body for a request; None: hang up."""
        mode = self._mode
        if mode is Mode.SILENT:
            with self._changed:
                self._changed.wait_for(lambda: self._mode is not Mode.SILENT, timeout=60)
            return None
        if mode is Mode.REFUSE:
            return 503, b"no healthy upstream"
        if mode is Mode.GARBAGE:
            return 200, b"<html>a captive portal</html>"
        status, content = self._asked(path)
        return (status, _later(content, 600)) if mode is Mode.AHEAD and status == 200 else (status, content)

    def _asked(self, path: str) -> tuple[int, bytes]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self._upstream}{path}", timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.asked_as.add((self.headers.get("X-Scope-OrgID", ""), self.headers.get("Authorization", "")))
                answer = stub.answer(self.path)
                if answer is None:
                    return
                self.send_response(answer[0])
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            def log_message(self, format: str, *args: object) -> None:
                """The operator's log says what it met."""

        return Handler


def _later(content: bytes, seconds: float) -> bytes:
    """The answer to a range query with other times."""
    answer = json.loads(content)
    for row in answer["data"]["result"]:
        row["values"] = [[time + seconds, value] for time, value in row["values"]]
    return json.dumps(answer).encode()
