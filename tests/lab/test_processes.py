"""Daemons: started once, restarted when their settings change, and a stranger's pid is never taken for ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lab.errors import NotReadyError
from lab.processes import Record, Supervisor, http_ok, is_running, start_ticks

SLEEP = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(60)"]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "pids", tmp_path / "logs")
    yield made
    for name in made.names():
        made.stop(name, grace_seconds=1)


def record(supervisor: Supervisor, name: str = "a") -> Record:
    found = supervisor.record(name)
    assert found is not None
    return found


def test_a_second_start_with_the_same_command_is_a_no_op(supervisor: Supervisor) -> None:
    assert supervisor.start("a", SLEEP)
    first = record(supervisor)
    assert not supervisor.start("a", SLEEP)
    assert record(supervisor) == first


@pytest.mark.parametrize("changed", ["command", "environment", "settings"])
def test_changed_settings_restart_it(supervisor: Supervisor, tmp_path: Path, changed: str) -> None:
    settings = tmp_path / "settings"
    settings.write_text("1")
    supervisor.start("a", SLEEP, settings=[settings])
    first = record(supervisor)
    if changed == "settings":
        settings.write_text("2")
    command = [*SLEEP, "x"] if changed == "command" else SLEEP
    assert supervisor.start("a", command, settings=[settings], env={"X": "1"} if changed == "environment" else None)
    assert record(supervisor).pid != first.pid
    assert not is_running(first)


def test_a_killed_daemon_is_started_again(supervisor: Supervisor) -> None:
    supervisor.start("a", SLEEP)
    first = record(supervisor)
    os.kill(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    assert not supervisor.running("a")
    assert supervisor.start("a", SLEEP)
    assert supervisor.running("a")


def test_stop_ends_one_that_ignores_sigterm(supervisor: Supervisor) -> None:
    stubborn = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    supervisor.start("a", [sys.executable, "-S", "-c", stubborn])
    supervisor.await_ready("a", lambda: "deaf" in supervisor.tail("a"), seconds=10)
    known = record(supervisor)
    supervisor.stop("a", grace_seconds=0.2)
    assert not is_running(known)
    assert supervisor.names() == []


def test_a_recycled_pid_is_neither_running_nor_killed(supervisor: Supervisor) -> None:
    """The record says another start time than the process that now has the pid: it is a stranger."""
    stranger = subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL)
    try:
        ticks = start_ticks(stranger.pid)
        assert ticks is not None
        supervisor.start("a", SLEEP)
        supervisor._write("a", replace(record(supervisor), pid=stranger.pid, start_ticks=ticks - 1))
        assert not supervisor.running("a")
        supervisor.stop("a", grace_seconds=0.1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_zombie_is_not_running() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ticks = start_ticks(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert start_ticks(child.pid) is None
        assert not is_running(Record(child.pid, ticks or 0, ""))
    finally:
        child.wait()


def test_a_process_name_with_parentheses_is_read_correctly(tmp_path: Path) -> None:
    program = tmp_path / "a) S (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as child:
        by_name = start_ticks(child.pid)
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        child.kill()
    assert by_name is not None
    assert abs(by_name / os.sysconf("SC_CLK_TCK") - uptime) < 5


def test_one_that_ends_before_it_is_ready_is_an_error_with_its_last_words(supervisor: Supervisor) -> None:
    supervisor.start("a", [sys.executable, "-S", "-c", "import time; time.sleep(0.2); print('no such flag'); raise SystemExit(1)"])
    with pytest.raises(NotReadyError, match="no such flag"):
        supervisor.await_ready("a", lambda: False, seconds=10)


def test_the_deadline_is_kept(supervisor: Supervisor) -> None:
    supervisor.start("a", SLEEP)
    started = time.monotonic()
    with pytest.raises(NotReadyError, match="not ready after 0 s"):
        supervisor.await_ready("a", lambda: False, seconds=0.3)
    assert time.monotonic() - started < 5


class Handler(BaseHTTPRequestHandler):
    """Answers /ok with 200 to a caller with the token, everything else with 503."""

    def do_GET(self) -> None:
        allowed = self.path == "/ok" and self.headers.get("Authorization") == "Bearer t"
        self.send_response(200 if allowed else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.mark.parametrize(("path", "token", "expected"), [("/ok", "t", True), ("/ok", None, False), ("/other", "t", False)])
def test_http_ok_is_true_for_200_only(path: str, token: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.handle_request, daemon=True).start()
        assert http_ok(f"http://127.0.0.1:{server.server_port}{path}", token=token) is expected


def test_http_ok_is_false_where_nobody_listens() -> None:
    assert not http_ok("http://127.0.0.1:1/ok")
