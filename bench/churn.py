"""Whether the operator leaks: policies are created, edited and deleted for an hour while its memory, tasks and open files are sampled.

A population that stays as large as it is: in turns a policy of a new name is created, one of those there are is edited, the oldest is
deleted. A quarter of the time more, before, is warm-up and not judged. Needs a lab of fake nodes: `python -m lab up --node fake`, then
`python -m bench.churn --minutes 10`. The exit code is 1 where a goal is missed, or where the operator fell behind: then nothing is known.
"""

import asyncio
import io
import json
import math
import random
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.create_burst import Api, connect, in_parallel, policies_path
from bench.document import machine, picture, write_document
from e2e.cluster import Cluster, apply_crds
from e2e.operator_process import OperatorProcess
from e2e.policies import a_class, a_policy
from e2e.waiting import eventually
from lab.lab import Lab

NAMESPACES = 4
SAMPLE_SECONDS = 5.0
PATIENCE = 300.0
"""Seconds a busy machine may take to let the operator answer."""
BLOCKS = 12
"""The samples are averaged in so many blocks, which are nearly independent of each other, and a line is laid through them."""
MEMORY_GOAL, FLAT = 1.0, 5
"""MiB an hour; tasks or open files more at the end than at the beginning."""
LATE = 0.9
"""Share of the wanted rate that must have been reached."""
JSON = "application/json"


@dataclass(frozen=True)
class Sample:
    """`at`: seconds since the warm-up ended. `types`: objects by type."""

    at: float
    resident: int
    tasks: int
    files: int
    changes: int
    types: dict[str, int] = field(repr=False)


@dataclass(frozen=True)
class Slope:
    """Of a line through values, and twice its standard error: per hour, in the values' unit."""

    per_hour: float
    error: float


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """Of (seconds, value) by least squares through the means of BLOCKS blocks. Pure."""
    size = max(1, len(points) // BLOCKS)
    blocks = [points[start : start + size] for start in range(0, len(points) - size + 1, size)]
    x = [statistics.fmean(at for at, _ in block) / 3600 for block in blocks]
    y = [statistics.fmean(value for _, value in block) for block in blocks]
    if len(blocks) < 3:
        return Slope(0.0, math.inf)
    line = statistics.linear_regression(x, y)
    middle = statistics.fmean(x)
    left = sum((value - line.intercept - line.slope * at) ** 2 for at, value in zip(x, y, strict=True)) / (len(blocks) - 2)
    return Slope(line.slope, 2 * math.sqrt(left / sum((at - middle) ** 2 for at in x)))


def grown(values: Sequence[int]) -> int:
    """By how much the least of the last quarter exceeds the least of the first one: what comes and goes does not count. Pure."""
    quarter = max(1, len(values) // 4)
    return min(values[-quarter:]) - min(values[:quarter])


def grown_types(samples: Sequence[Sample], most: int = 6) -> list[tuple[str, int]]:
    """The types of which there are more in the last quarter than in the first one, by medians, the most grown first. Pure."""
    quarter = max(1, len(samples) // 4)
    names = {name for sample in samples for name in sample.types}

    def middle(of: Iterable[Sample], name: str) -> float:
        return statistics.median(sample.types.get(name, 0) for sample in of)

    found = {name: int(middle(samples[-quarter:], name) - middle(samples[:quarter], name)) for name in names}
    return sorted(((name, count) for name, count in found.items() if count > 0), key=lambda each: -each[1])[:most]


@dataclass(frozen=True)
class Verdict:
    """What is judged, of the samples after the warm-up; `rate`: changes a second that were wanted."""

    samples: tuple[Sample, ...]
    rate: float

    @property
    def memory(self) -> Slope:
        """MiB an hour."""
        return slope([(sample.at, sample.resident / 2**20) for sample in self.samples])

    @property
    def reached(self) -> float:
        """Changes a second."""
        first, last = self.samples[0], self.samples[-1]
        return (last.changes - first.changes) / (last.at - first.at)

    def problems(self) -> list[str]:
        """Goals that are missed for certain. A slope is held against its goal less its error: a short run finds large leaks only."""
        tasks, files = grown([sample.tasks for sample in self.samples]), grown([sample.files for sample in self.samples])
        memory = self.memory
        return [
            text
            for missed, text in (
                (self.reached < LATE * self.rate, f"only {self.reached:.1f} changes a second of {self.rate:g} were made"),
                (memory.per_hour - memory.error > MEMORY_GOAL, f"memory grows by {memory.per_hour:.1f} ± {memory.error:.1f} MiB an hour"),
                (tasks > FLAT, f"{tasks} asyncio tasks more"),
                (files > FLAT, f"{files} open files more"),
            )
            if missed
        ]


class Churn:
    """The policies that come and go."""

    def __init__(self, api: Api, namespaces: Sequence[str], population: int) -> None:
        self._api, self._namespaces, self._population = api, namespaces, population
        self._there: deque[tuple[str, str]] = deque()
        self._made = 0
        self._random = random.Random(7)
        self.changes = 0
        """Made so far."""

    async def fill(self) -> None:
        """Create the population."""
        await in_parallel(16, [self.create] * self._population)

    async def create(self) -> None:
        """A policy of a new name."""
        number, self._made = self._made, self._made + 1
        namespace, name = self._namespaces[number % len(self._namespaces)], f"c{number}"
        await self._api.send("POST", policies_path(namespace), a_policy(name, namespace, replicas=0))
        self._there.append((namespace, name))
        self.changes += 1

    async def edit(self) -> None:
        """One of the younger half, so that it is not deleted at the same time."""
        namespace, name = self._there[self._random.randrange(len(self._there) // 2, len(self._there))]
        body = {"spec": {"traffic": {"timeout": f"{self._random.randrange(3, 3600)}s"}}}
        await self._api.send("PATCH", f"{policies_path(namespace)}/{name}", body, "application/merge-patch+json", JSON)
        self.changes += 1

    async def delete(self) -> None:
        """The oldest one."""
        namespace, name = self._there.popleft()
        await self._api.send("DELETE", f"{policies_path(namespace)}/{name}", accept=JSON)
        self.changes += 1

    async def run(self, rate: float) -> None:
        """Change something `rate` times a second, until cancelled."""
        turns: tuple[Callable[[], Any], ...] = (self.create, self.edit, self.delete)
        started, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(turns[number % len(turns)]())
                number += 1
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))


def look(process: OperatorProcess, file: Path, started: float, changes: int) -> Sample:
    """One sample. Memory first: looking takes some."""
    resident, files = process.resident_bytes, process.open_files
    file.unlink(missing_ok=True)
    process.send(signal.SIGUSR1)
    try:
        eventually(file.exists, PATIENCE)
    except AssertionError as error:
        raise RuntimeError(f"the operator does not tell what it holds:\n{process.log.read_text()[-3000:]}") from error
    held = json.loads(file.read_text())
    return Sample(time.monotonic() - started, resident, held["tasks"], files, changes, held["types"])


async def sampled(process: OperatorProcess, file: Path, churn: Churn, seconds: float, told: Callable[[Sample], None]) -> list[Sample]:
    """A sample every few seconds."""
    found: list[Sample] = []
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        await asyncio.sleep(SAMPLE_SECONDS)
        assert process.running, process.log.read_text()[-3000:]
        found.append(await asyncio.to_thread(look, process, file, started, churn.changes))
        told(found[-1])
    return found


async def measure(cluster: Cluster, minutes: float, rate: float, population: int, console: Console) -> Verdict:
    """The whole run."""
    run, last = uuid.uuid4().hex[:6], [0.0]
    names = [f"churn-{run}-{number}" for number in range(NAMESPACES)]
    labels = {"istio-injection": "enabled"}
    cluster.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}} for name in names))

    def tell(sample: Sample) -> None:
        if sample.at - last[0] < 60 and sample.at > last[0]:
            return
        last[0] = sample.at
        held = f"{sample.resident / 2**20:.1f} MiB, {sample.tasks} tasks, {sample.files} open files"
        console.print(f"{sample.at / 60:5.1f} min: {sample.changes} changes, {held}")

    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "holdings.json", Path(folder) / "operator.log"
        program = ("-m", "bench.counted", str(file))
        async with connect(cluster.lab) as api:
            churn = Churn(api, names, population)
            with OperatorProcess(cluster.lab, log, program=program) as process:
                console.print(f"{population} policies, warm-up of {minutes / 4:g} min")
                await churn.fill()
                changing = asyncio.create_task(churn.run(rate))
                try:
                    await sampled(process, file, churn, minutes * 15, tell)
                    console.print(f"{minutes:g} min that count")
                    samples = await sampled(process, file, churn, minutes * 60, tell)
                    if changing.done():
                        changing.result()
                finally:
                    changing.cancel()
                    await asyncio.wait([changing])
    cluster.kubectl("delete", "namespace", *names, "--wait=false")
    return Verdict(tuple(samples), rate)


def show(verdict: Verdict, console: Console) -> None:
    """The verdict for people."""
    samples, memory = verdict.samples, verdict.memory
    first, last = samples[0], samples[-1]
    table = Table(title=f"{last.at / 60:.0f} min of {verdict.reached:.1f} changes a second")
    for name in ("", "first", "last", "growth", "goal"):
        table.add_column(name, justify="left" if not name else "right")
    mib = [f"{sample.resident / 2**20:.1f} MiB" for sample in (first, last)]
    table.add_row("memory", *mib, f"{memory.per_hour:+.2f} ± {memory.error:.2f} MiB/h", f"≤ {MEMORY_GOAL:g} MiB/h")
    for name, values in (("asyncio tasks", [s.tasks for s in samples]), ("open files", [s.files for s in samples])):
        table.add_row(name, str(values[0]), str(values[-1]), f"{grown(values):+d}", f"≤ {FLAT}")
    console.print(table)
    types = "; ".join(f"{name} +{count}" for name, count in grown_types(samples))
    console.print(f"objects of which there are more in the last quarter than in the first: {types or 'none'}")
    for problem in verdict.problems():
        console.print(f"MISSED: {problem}")


def memory_picture(verdict: Verdict) -> str:
    """Memory over time, the mean of each minute, as SVG. Pure."""
    by_minute: dict[int, list[float]] = {}
    for sample in verdict.samples:
        by_minute.setdefault(int(sample.at // 60), []).append(sample.resident / 2**20)
    means = [statistics.fmean(values) for values in by_minute.values()]
    return picture("Memory, MiB", "minutes", list(by_minute), {"the operator": means})


@click.command()
@click.option("--lab", default="fake", show_default=True, help="Name of a lab of fake nodes that is up.")
@click.option("--minutes", default=60.0, show_default=True, help="Time that counts; a quarter of it more is warm-up.")
@click.option("--rate", default=5.0, show_default=True, help="Changes a second.")
@click.option("--policies", default=200, show_default=True, help="Policies there are at any time.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write every sample there.")
@click.option("--document", is_flag=True, help="Renew the figures and the picture of docs/benchmarks.md.")
def main(lab: str, minutes: float, rate: float, policies: int, output: Path | None, document: bool) -> None:
    """See whether memory, tasks and open files stay as they are while policies come and go."""
    console = Console(soft_wrap=True)
    cluster = Cluster(Lab(lab, "fake"))
    apply_crds(cluster.kubectl)
    cluster.apply(a_class())
    verdict = asyncio.run(measure(cluster, minutes, rate, policies, console))
    show(verdict, console)
    if document:
        text = Console(record=True, file=io.StringIO(), width=110)
        show(verdict, text)
        write_document("churn", f"{machine()}\n\n```text\n{text.export_text().strip()}\n```", {"churn": memory_picture(verdict)})
    if output is not None:
        output.write_text(json.dumps([asdict(sample) for sample in verdict.samples]) + "\n")
    sys.exit(bool(verdict.problems()))


if __name__ == "__main__":
    main()
