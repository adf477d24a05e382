"""A real Alertmanager on loopback, told of alerts as Prometheus tells it and asked which of them it holds back."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.operator_process import free_port
from e2e.waiting import eventually
from tests import lab_tools

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Alertmanager:
    """Its API."""

    url: str

    def fire(self, alerts: Sequence[Labels]) -> None:
        """These alerts fire, in this order."""
        self._ask("alerts", [{"labels": dict(labels)} for labels in alerts])

    def resolve(self, alerts: Sequence[Labels]) -> None:
        """These are resolved."""
        self._ask("alerts", [{"labels": dict(labels), "endsAt": datetime.now(UTC).isoformat()} for labels in alerts])

    def alerts(self) -> list[tuple[dict[str, str], str]]:
        """Labels and state of what is not resolved: "active", or "suppressed" where a rule holds it back (there are no silences)."""
        return [(alert["labels"], alert["status"]["state"]) for alert in self._ask("alerts")]

    def _ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/v2/{path}", data, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")


@contextmanager
def serve(folder: Path, inhibit_rules: Sequence[Mapping[str, Any]]) -> Iterator[Alertmanager]:
    """An Alertmanager with these rules and nobody to notify. A warning it logs, of matchers read in two ways say, fails the test."""
    program = lab_tools.required("alertmanager", "alertmanager")
    settings, log, address = folder / "alertmanager.yaml", folder / "alertmanager.log", f"127.0.0.1:{free_port()}"
    config = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}], "inhibit_rules": [dict(rule) for rule in inhibit_rules]}
    settings.write_text(yaml.safe_dump(config))
    command: list[str | Path] = [
        program, f"--config.file={settings}", f"--storage.path={folder / 'data'}", f"--web.listen-address={address}",
        "--cluster.listen-address=", "--log.level=warn",
    ]  # fmt: skip
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    served = Alertmanager(f"http://{address}")

    def answers() -> bool:
        if process.poll() is not None:
            pytest.fail(log.read_text())
        return served.alerts() == []

    try:
        eventually(answers)
        yield served
        assert log.read_text() == ""
    finally:
        process.terminate()
        process.wait(60)
