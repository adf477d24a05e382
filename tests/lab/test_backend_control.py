"""Faults reach every running pod, and a pod that refuses is named."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from lab import backend_control
from lab.errors import CommandError
from lab.lab import Lab

ASKED: list[tuple[str, Any]] = []


class Backend(BaseHTTPRequestHandler):
    """Echoes what it is sent; refuses unknown faults as the real one does."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append((self.path, body))
        self.send_response(400 if "unknown" in body else 200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def pod(name: str, **changes: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"phase": "Running", "podIP": "127.0.0.1"}, **changes}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    server = HTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(backend_control, "CONTROL_PORT", server.server_address[1])
    ASKED.clear()
    yield Lab("unit", "real")
    server.shutdown()
    server.server_close()


def pods(monkeypatch: pytest.MonkeyPatch, *items: dict[str, Any]) -> None:
    monkeypatch.setattr(Lab, "get", lambda *_: {"items": list(items)})


def test_every_running_pod_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    pods(monkeypatch, pod("a"), pod("b"))
    assert backend_control.set_fault(lab, "n", "app=x", latency_ms=20) == ["a", "b"]
    assert ASKED == [("/control", {"latency_ms": 20})] * 2


def test_pods_that_come_and_go_are_left_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving = pod("leaving", metadata={"name": "leaving", "deletionTimestamp": "2026-11-21T09:00:00Z"})
    pods(monkeypatch, pod("a"), pod("starting", status={"phase": "Pending"}), leaving)
    assert backend_control.set_fault(lab, "n", "app=x", latency_ms=20) == ["a"]


def test_no_pod_is_an_error_not_a_silent_success(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    pods(monkeypatch)
    with pytest.raises(CommandError, match="no running pod in n matches app=x"):
        backend_control.set_fault(lab, "n", "app=x", latency_ms=20)


def test_a_refusal_names_the_pod(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    pods(monkeypatch, pod("a"))
    with pytest.raises(CommandError, match="pod a was answered 400"):
        backend_control.set_fault(lab, "n", "app=x", unknown=1)
