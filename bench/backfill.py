"""A real Prometheus over a past that is written into it: samples by promtool's import, rules by promtool's backfilling."""

import json
import re
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.waiting import eventually

Row = tuple[dict[str, str], list[tuple[float, float]]]
"""A series' labels and its (time, value) pairs."""

_RULES = "rules.yaml"
"""Named from its own folder: at what seconds of its interval a group is evaluated follows from its name and its file's, as it was given."""


@dataclass(frozen=True)
class Group:
    """Rules as Prometheus spells them, evaluated every `interval` seconds."""

    name: str
    interval: int
    rules: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Past:
    """Blocks in `directory`, and the programs that write and serve them."""

    directory: Path
    prometheus: Path
    promtool: Path

    @property
    def data(self) -> Path:
        """The blocks."""
        return self.directory / "data"

    def write(self, lines: Iterable[str]) -> None:
        """Import samples of `istio_requests`, in OpenMetrics."""
        source = self.directory / "samples.om"
        with source.open("w") as out:
            out.write("# TYPE istio_requests counter\n")
            out.writelines(lines)
            out.write("# EOF\n")
        self._promtool("tsdb", "create-blocks-from", "--max-block-duration=486h", "openmetrics", "--quiet", source, self.data)
        source.unlink()

    def record(self, groups: Sequence[Group], start: float, end: float, missed: Sequence[float] = ()) -> None:
        """Evaluate recording rules from `start` to `end`, but not at the times `missed`; each sees what those before it recorded."""
        for level in levels(groups):
            (self.directory / _RULES).write_text(yaml.safe_dump({"groups": [_document(group) for group in level]}))
            with self.server() as prometheus:
                for since, until in _spans(start, end, missed):
                    span = f"--start={since:.0f}", f"--end={until:.0f}"
                    wanted = "rules", f"--url={prometheus.url}", *span, f"--output-dir={self.data}", _RULES
                    self._promtool("tsdb", "create-blocks-from", "--max-block-duration=54h", *wanted)

    @contextmanager
    def server(self) -> Iterator["Prometheus"]:
        """A Prometheus that serves the blocks."""
        with serve(self.directory, self.prometheus) as (served, _):
            yield served

    def _promtool(self, *arguments: str | Path) -> None:
        done = subprocess.run([self.promtool, *arguments], cwd=self.directory, capture_output=True, text=True, check=False)
        if done.returncode or "err=" in done.stdout + done.stderr:
            raise RuntimeError(f"promtool {' '.join(map(str, arguments))}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


@dataclass(frozen=True)
class Prometheus:
    """The query API of a server."""

    url: str

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False

    def value(self, promql: str, at: float) -> float:
        """The one element of an instant query; NaN where there is none."""
        rows = self._ask("query", query=promql, time=f"{at}")["result"]
        assert len(rows) <= 1, f"{len(rows)} elements: {promql}"
        return float(rows[0]["value"][1]) if rows else float("nan")

    def instant(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """The elements of an instant query now."""
        return [(row["metric"], float(row["value"][1])) for row in self._ask("query", query=promql)["result"]]

    def row(self, selector: str) -> list[tuple[float, float]]:
        """The (time, value) pairs of one series, of a range selector that ends now; ascending."""
        rows = self._ask("query", query=selector)["result"]
        assert len(rows) == 1, f"{len(rows)} series: {selector}"
        return [(float(at), float(value)) for at, value in rows[0]["values"]]

    def series(self, promql: str, start: float, end: float, step: float) -> list[Row]:
        """A range query."""
        rows = self._ask("query_range", query=promql, start=f"{start}", end=f"{end}", step=f"{step}")["result"]
        return [(row["metric"], [(float(at), float(value)) for at, value in row["values"]]) for row in rows]

    def newest(self, selector: str, at: float) -> float:
        """When the selected series' newest sample of the ten minutes before `at` was recorded."""
        rows = self._ask("query", query=f"{selector}[10m]", time=f"{at}")["result"]
        return max(float(stamp) for row in rows for stamp, _ in row["values"])

    def samples(self, promql: str, at: float) -> int:
        """Samples an instant query touches, as Prometheus counts them."""
        return int(self._ask("query", query=promql, time=f"{at}", stats="all")["stats"]["samples"]["totalQueryableSamples"])

    def _ask(self, kind: str, **parameters: str) -> Any:
        body = urllib.parse.urlencode(parameters).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/{kind}", data=body, timeout=600) as answer:  # noqa: S310
            return json.load(answer)["data"]


@contextmanager
def serve(
    directory: Path, program: Path, config: Mapping[str, Any] | None = None, *options: str
) -> Iterator[tuple[Prometheus, subprocess.Popen[bytes]]]:
    """A Prometheus over the blocks in `directory`/data, and its process."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    settings = directory / "prometheus.yaml"
    settings.write_text(yaml.safe_dump(dict(config or {})))
    command: list[str | Path] = [
        program, f"--config.file={settings}", f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=100y", "--query.timeout=10m", "--query.max-samples=500000000", "--log.level=warn",
        *options,
    ]  # fmt: skip
    with (directory / "prometheus.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        served = Prometheus(f"http://127.0.0.1:{port}")
        eventually(served.ready, seconds=120)
        yield served, process
    finally:
        process.terminate()
        process.wait(60)


def levels(groups: Sequence[Group]) -> Iterator[list[Group]]:
    """The recording rules in turns: each reads raw series and what earlier turns recorded.

    A rule that asks whether its own series was there before has two turns: promtool evaluates all times at once, and does not see then what
    it is about to record.
    """
    waiting = [(group, each) for group in groups for rule in group.rules if "record" in rule for each in _apart(rule)]
    while waiting:
        pending = {rule["record"] for _, rule in waiting}
        ready = [(group, rule) for group, rule in waiting if not any(name in rule["expr"] for name in pending)]
        assert ready, f"rules that read one another: {sorted(pending)}"
        waiting = [item for item in waiting if item not in ready]
        kept = [Group(group.name, group.interval, [rule for owner, rule in ready if owner is group]) for group in groups]
        yield [group for group in kept if group.rules]


def _apart(rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A rule that asks whether its own series was there before, as two: the series as if it never had been, and one that asks for it.

    Right where the rule sums more when there was nothing before: wherever the first of the two is, the other is, or its sums are equal.
    What is recorded at the time of the question is no answer: it was not there yet.
    """
    name = rule["record"]
    if name not in rule["expr"]:
        return [rule]
    seen = "seen_" + name.replace(":", "_")
    asked = re.sub(rf"{name}({{[^}}]*}}\[\w+])", rf"{seen}\1 offset 1s", rule["expr"])
    return [{**rule, "record": seen, "expr": rule["expr"].replace(name, "nothing")}, {**rule, "expr": asked}]


def _document(group: Group) -> dict[str, Any]:
    return {"name": group.name, "interval": f"{group.interval}s", "rules": [dict(rule) for rule in group.rules]}


def _spans(start: float, end: float, missed: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Between the spans lie 30 s each, which hold one evaluation of a group of steps: groups have a phase of their own."""
    for at in sorted(missed):
        yield start, at - 15
        start = at + 14
    yield start, end
