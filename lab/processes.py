"""Starts, checks and stops the lab's daemons so that they outlive the shell and are never confused with strangers.

A record per daemon holds its pid AND the kernel's start time of that pid: a pid that was recycled by another program is
therefore never taken for ours, and never killed. May touch: the lab's state folder and the processes it started.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.errors import NotReadyError

_POLL_SECONDS = 0.1
_TERM_SECONDS = 10.0


@dataclass(frozen=True)
class Record:
    """A daemon as it was started; `start_ticks` is field 22 of /proc/PID/stat, `digest` is of its command and settings."""

    pid: int
    start_ticks: int
    digest: str


def start_ticks(pid: int) -> int | None:
    """The kernel's start time of `pid` in clock ticks since boot; None when there is no such process, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name is in parentheses and may itself contain blanks and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def is_running(record: Record) -> bool:
    """Whether the very process of `record` is still alive."""
    return start_ticks(record.pid) == record.start_ticks


@dataclass(frozen=True)
class Supervisor:
    """The daemons of one lab: `pids` holds their records, `logs` their output."""

    pids: Path
    logs: Path

    def record(self, name: str) -> Record | None:
        """The record of daemon `name`, whether it still runs or not; None when it was never started."""
        path = self.pids / f"{name}.json"
        try:
            return Record(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None

    def running(self, name: str) -> bool:
        """Whether daemon `name` was started by this lab and still runs."""
        record = self.record(name)
        return record is not None and is_running(record)

    def names(self) -> list[str]:
        """Names of all daemons with a record, in the order in which they were started."""
        return [path.stem for path in sorted(self.pids.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)]

    def log(self, name: str) -> Path:
        """The file that holds what daemon `name` printed; it is appended to across restarts."""
        return self.logs / f"{name}.log"

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        settings: Sequence[Path] = (),
        cwd: Path | None = None,
    ) -> bool:
        """Start daemon `name` unless it already runs with the same command, environment and content of `settings` files.

        One that runs with others is restarted. `env` is added to this process's environment. Returns whether it was started.
        """
        words = [str(word) for word in command]
        digest = _digest(words, dict(env or {}), settings)
        known = self.record(name)
        if known is not None and is_running(known):
            if known.digest == digest:
                return False
            self.stop(name)
        self.pids.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                cwd=cwd or "/",
                start_new_session=True,
            )
        ticks = start_ticks(process.pid)
        # The child is ours to forget: init adopts it when `up` ends. Without this Popen warns that it still runs.
        process.returncode = 0
        if ticks is None:
            raise NotReadyError(f"{name} ended at once; see {self.log(name)}:\n{self.tail(name)}")
        self._write(name, Record(process.pid, ticks, digest))
        return True

    def stop(self, name: str, *, grace_seconds: float = _TERM_SECONDS) -> None:
        """End daemon `name` (SIGTERM, then SIGKILL after `grace_seconds`) and forget it; nothing when it does not run."""
        record = self.record(name)
        if record is not None and is_running(record):
            os.kill(record.pid, signal.SIGTERM)
            deadline = time.monotonic() + grace_seconds
            while is_running(record) and time.monotonic() < deadline:
                _reap(record.pid)
                time.sleep(_POLL_SECONDS / 2)
            if is_running(record):
                os.kill(record.pid, signal.SIGKILL)
                while is_running(record):
                    _reap(record.pid)
                    time.sleep(_POLL_SECONDS / 2)
        (self.pids / f"{name}.json").unlink(missing_ok=True)

    def tail(self, name: str, lines: int = 15) -> str:
        """The last lines daemon `name` printed, for error messages."""
        log = self.log(name)
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"

    def await_ready(self, name: str, check: Callable[[], bool], *, seconds: float) -> None:
        """Poll `check` until it is true; raises NotReadyError with the log's tail at the deadline or when the daemon ends."""
        deadline = time.monotonic() + seconds
        while not check():
            if not self.running(name):
                raise NotReadyError(f"{name} ended before it was ready; see {self.log(name)}:\n{self.tail(name)}")
            if time.monotonic() > deadline:
                raise NotReadyError(f"{name} was not ready after {seconds:.0f} s; see {self.log(name)}:\n{self.tail(name)}")
            time.sleep(_POLL_SECONDS)

    def _write(self, name: str, record: Record) -> None:
        temporary = self.pids / f".{name}.partial"
        temporary.write_text(json.dumps(asdict(record)))
        temporary.rename(self.pids / f"{name}.json")


def _reap(pid: int) -> None:
    """Collect `pid` if it is a child of this very process, so that it does not stay a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _digest(words: Sequence[str], env: Mapping[str, str], settings: Sequence[Path]) -> str:
    digest = hashlib.sha256(json.dumps([list(words), sorted(env.items())]).encode())
    for path in settings:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def http_ok(url: str, *, ca: Path | None = None, client: tuple[Path, Path] | None = None, token: str | None = None) -> bool:
    """Whether a GET of `url` is answered with 200 within two seconds; no proxy is asked. `client` is a certificate and its key."""
    parts = urllib.parse.urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        if client:
            context.load_cert_chain(*client)
        connection = http.client.HTTPSConnection(parts.netloc, timeout=2, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=2)
    try:
        connection.request("GET", parts.path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
