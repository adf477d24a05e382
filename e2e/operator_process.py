"""The operator as a process of its own, as it runs in a pod: started, asked whether it is ready, stopped or killed."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from e2e.waiting import eventually
from lab.lab import Lab

PROGRAM = ("-m", "perfpolicy", "run")
_PORTS = range(10_000, 16_000)
"""Below those of the labs (lab/lab.py) and of outgoing connections (from 32768 on)."""


def free_port() -> int:
    """A port of this machine nobody listens on, and none the kernel may give to the next connection before the operator listens."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory of a process in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class OperatorProcess:
    """One operator on a lab. Use as a context manager."""

    patience = 60.0
    """Seconds it is given to get ready."""

    def __init__(self, lab: Lab, log: Path, port: int = 0, program: tuple[str, ...] = PROGRAM, **settings: str) -> None:
        """`settings`: PERFPOLICY_* variables, without the prefix and in lower case. `program`: what Python runs.

        `port`: of its probes; 0: the lab's one for an operator.
        """
        self.log = log
        self._program = program
        port = port or lab.port("operator")
        self._url = f"http://127.0.0.1:{port}"
        given = {"health_port": str(port), "log_format": "text", "kubeconfig": str(lab.kubeconfig), **settings}
        self._environment = {**os.environ, **{f"PERFPOLICY_{name.upper()}": value for name, value in given.items()}}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "OperatorProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        except BaseException:
            # One that does not end keeps the port from the next.
            self.kill()
            raise

    def start(self) -> None:
        """Start it and wait until it is ready; what does not get ready is ended."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, *self._program], env=self._environment, stdout=log, stderr=log)
        try:
            eventually(self._is_ready, self.patience)
        except BaseException:
            self.kill()
            raise

    def send(self, number: signal.Signals) -> None:
        """Send a signal and do not wait for what follows."""
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self, seconds: float) -> int:
        """Wait for its end; its exit code."""
        assert self._process is not None
        code = self._process.wait(timeout=seconds)
        self._process = None
        return code

    def readiness(self) -> dict[str, Any]:
        """What /readyz?verbose says of a ready operator; an OSError where it is not ready or does not answer."""
        with urllib.request.urlopen(f"{self._url}/readyz?verbose", timeout=5) as answer:  # noqa: S310 - a fixed http URL
            found: dict[str, Any] = json.load(answer)
        return found

    def is_live(self) -> bool:
        """What a kubelet would conclude from /healthz."""
        return self._answers("/healthz")

    def metrics(self, *names: str) -> str:
        """What /metrics says, of the named metrics only where any are named."""
        query = urlencode([("name[]", name) for name in names])
        with urllib.request.urlopen(f"{self._url}/metrics?{query}", timeout=5) as answer:  # noqa: S310 - a fixed http URL
            return str(answer.read().decode())

    def kill(self) -> None:
        """SIGKILL: no chance to clean up."""
        self._signal(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        return self._signal(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """Process ID."""
        assert self._process is not None
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """User and system time so far."""
        return cpu_seconds(self.pid)

    @property
    def resident_bytes(self) -> int:
        """Memory in use."""
        return resident_bytes(self.pid)

    @property
    def open_files(self) -> int:
        """Files, sockets and pipes it has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    @property
    def running(self) -> bool:
        """It has not ended by itself."""
        return self._process is not None and self._process.poll() is None

    def _signal(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self.send(number)
        return self.ended(seconds=15)

    def _is_ready(self) -> bool:
        if not self.running:
            raise RuntimeError(f"the operator ended:\n{self.log.read_text()[-3000:]}")  # no AssertionError: it is not waited for
        return self._answers("/readyz")

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}{path}", timeout=2) as answer:  # noqa: S310 - a fixed http URL
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
