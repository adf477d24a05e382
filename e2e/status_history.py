"""Every status the API server handed out while a test ran, with the moment it arrived: one `kubectl get --watch`, no polling.

What must never have been said between two moments can only be told from all that was said.
"""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lab.components import binary
from lab.lab import Lab


@dataclass(frozen=True)
class Shown:
    """A policy as it was shown at a moment."""

    at: datetime
    policy: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the policy."""
        return str(self.policy["metadata"]["name"])

    @property
    def status(self) -> Mapping[str, Any]:
        """Its whole status."""
        return self.policy.get("status") or {}

    def condition(self, kind: str) -> tuple[str, str]:
        """(status, reason); Unknown and "" where there is no such condition."""
        found: Mapping[str, str] = next((item for item in self.status.get("conditions", ()) if item["type"] == kind), {})
        return found.get("status", "Unknown"), found.get("reason", "")

    def message(self, kind: str) -> str:
        """Message of a condition."""
        return next((str(item.get("message", "")) for item in self.status.get("conditions", ()) if item["type"] == kind), "")

    def threshold(self, name: str) -> Mapping[str, Any]:
        """A threshold of the status, empty where it is not there yet."""
        return next((item for item in self.status.get("thresholds", ()) if item["name"] == name), {})

    def verdicts(self) -> dict[str, str]:
        """Verdict of every threshold."""
        return {item["name"]: item["verdict"] for item in self.status.get("thresholds", ())}

    def violated(self) -> set[str]:
        """Names of the violated thresholds."""
        return {name for name, verdict in self.verdicts().items() if verdict == "Violated"}

    def sampled(self, name: str) -> datetime | None:
        """When the shown sample of a threshold was measured."""
        time = self.threshold(name).get("sampleTime")
        return datetime.fromisoformat(time) if time else None


class StatusHistory:
    """The policies of one namespace since the block was entered. Safe to ask while it grows."""

    def __init__(self, lab: Lab, namespace: str) -> None:
        self._lab, self._namespace = lab, namespace
        self._entries: list[Shown] = []
        self._grown = threading.Condition()

    def __enter__(self) -> "StatusHistory":
        command = [str(binary("kubectl")), "get", "pp", "-n", self._namespace, "--watch", "-o", "json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=self._lab.environment(), text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)
        self._reader.join(timeout=10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def wait(self, name: str, check: Callable[[Shown], bool], seconds: float) -> Shown | None:
        """The first status of a policy, from its present one on, that passes; None when none does in time."""
        deadline = datetime.now(UTC) + timedelta(seconds=seconds)
        with self._grown:
            looked = max((index for index, shown in enumerate(self._entries) if shown.name == name), default=0)
            while True:
                for shown in self._entries[looked:]:
                    if shown.name == name and check(shown):
                        return shown
                looked = len(self._entries)
                left = (deadline - datetime.now(UTC)).total_seconds()
                if left <= 0 or not self._grown.wait(left):
                    return None

    def of(self, name: str, since: datetime, until: datetime | None = None) -> list[Shown]:
        """All that was shown of a policy between two moments, the status that held at the first included."""
        with self._grown:
            own = [shown for shown in self._entries if shown.name == name and (until is None or shown.at <= until)]
        before = [shown for shown in own if shown.at < since]
        return before[-1:] + [shown for shown in own if shown.at >= since]

    def latest(self, name: str) -> Shown:
        """What is shown now."""
        with self._grown:
            return next(shown for shown in reversed(self._entries) if shown.name == name)

    def _read(self) -> None:
        for document in self._documents():
            with self._grown:
                self._entries.append(Shown(datetime.now(UTC), document))
                self._grown.notify_all()

    def _documents(self) -> Iterator[Mapping[str, Any]]:
        """kubectl prints one indented object after the other; only the last line of each is a brace alone."""
        lines: list[str] = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            lines.append(line)
            if line.rstrip("\n") == "}":
                yield json.loads("".join(lines))
                lines.clear()
