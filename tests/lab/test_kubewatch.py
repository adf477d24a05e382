"""The reflector keeps the server's set through events, broken streams and refusals."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lab.kubewatch import Reflector, WatchFailedError


def thing(name: str, version: str, **extra: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": version}, **extra}


def event(kind: str, *arguments: str) -> dict[str, Any]:
    return {"type": kind, "object": thing(*arguments)}


class Server:
    """Answers lists and watches from a script; blocks for ever when a script has ended."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self.lists = lists
        self.watches = watches
        self.asked: list[str] = []
        self.idle = threading.Event()

    def get(self, path: str) -> dict[str, Any]:
        self.asked.append(path)
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"metadata": {"resourceVersion": "10"}, "items": answer}

    def stream(self, path: str) -> Iterator[dict[str, Any]]:
        self.asked.append(path)
        if not self.watches:
            self.idle.set()
            threading.Event().wait()
        for answer in self.watches.pop(0):
            if isinstance(answer, Exception):
                raise answer
            yield answer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.kubewatch._RETRY_SECONDS", 0.01)


def followed(server: Server) -> tuple[dict[str, Any], int]:
    """Names by uid once the script has ended, and how often a change was told."""
    changes: list[None] = []
    reflector = Reflector(server, "/things?labelSelector=a", lambda found: found["metadata"]["name"], lambda: changes.append(None))
    reflector.start()
    assert server.idle.wait(5)
    assert reflector.synced.is_set()
    return reflector.objects, len(changes)


def test_events_change_the_listed_set() -> None:
    server = Server(
        [[thing("a", "1"), thing("b", "2")]], [[event("ADDED", "c", "11"), event("DELETED", "a", "12"), event("MODIFIED", "b", "13")]]
    )
    assert followed(server) == ({"uid-b": "b", "uid-c": "c"}, 4)


def test_a_watch_that_ended_goes_on_from_its_last_version() -> None:
    server = Server([[]], [[event("ADDED", "a", "11"), {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "20"}}}]])
    followed(server)
    assert "resourceVersion=10" in server.asked[1]
    assert "resourceVersion=20" in server.asked[2]
    assert "labelSelector=a&watch=1" in server.asked[2]


def test_an_expired_version_lists_again_and_forgets_what_is_gone() -> None:
    gone = {"type": "ERROR", "object": {"code": 410}}
    server = Server([[thing("a", "1")], [thing("b", "2")]], [[gone]])
    assert followed(server) == ({"uid-b": "b"}, 2)


@pytest.mark.parametrize("problem", [WatchFailedError("404"), ConnectionRefusedError(), TimeoutError()])
def test_a_refused_list_and_a_broken_stream_are_tried_again(problem: Exception) -> None:
    server = Server([problem, [thing("a", "1")], [thing("a", "1"), thing("b", "2")]], [[problem]])
    objects, _ = followed(server)
    assert objects == {"uid-a": "a", "uid-b": "b"}


def test_a_thread_that_dies_ends_its_process() -> None:
    program = """
import threading
from lab.kubewatch import end_with_any_thread
end_with_any_thread()
threading.Thread(target=lambda: 1 / 0).start()
threading.Event().wait(9)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=9, check=False)
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr
