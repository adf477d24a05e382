"""What one evaluation cycle costs with 10 to 5,000 policies: the operator's own queries, evaluation and scheduler on a real Prometheus.

The series the policies' rules would have recorded are scraped from a program that makes them up, with time stamps of their own, so they lie
where recorded ones do: in Prometheus' memory. Between the cycles a bare program sends the same queries and parses the answers, so that a
machine's speed cancels out of the ratio. Needs Prometheus, of the lab (`python -m lab up` builds it) or on PATH; no cluster:
`python -m bench.many_policies`.
"""

import asyncio
import http.server
import json
import math
import multiprocessing
import os
import resource
import statistics
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table

from bench.backfill import serve
from e2e.operator_process import cpu_seconds, resident_bytes
from e2e.waiting import eventually
from perfpolicy.evaluate.budget import REPORTED_WINDOWS
from perfpolicy.evaluate.evaluation import EvaluationMemory
from perfpolicy.evaluate.observation import Snapshot
from perfpolicy.handlers.garbage import collect_seldom
from perfpolicy.metrics.source import MetricsSource
from perfpolicy.policy import model
from perfpolicy.promql import names, objectives
from perfpolicy.promql.expr import duration
from perfpolicy.promql.queries import RANGE_INTERVALS, SHARES, Query, budget_queries, threshold_queries
from perfpolicy.reconcile.scheduler import MANY, Budget, Interval, Member, Scheduler
from perfpolicy.reconcile.state import PolicyState
from perfpolicy.telemetry import QUERIES
from tests import builders as a
from tests import lab_tools

SIZES = (10, 1000, 5000)
REVISION = 1
"""The rules are not what is measured: all policies have these."""
_STEP, _BLOCK = 30, 300
_BEAT = 0.01
_WAVE = 0.01
"""Each sample differs by up to so much from the one before, as measured ones do: a value that stays would be written in fewer digits."""
_APART = 1.234567e-7
"""No two policies' values are equal, which compression would profit from."""
_STEPS = {
    names.OFFERED_RATE: 1500, names.SERVED_RATE: 1490, names.JUDGED_RATE: 1500, names.ERROR_RATIO: 0.005, names.SLOW_RATIO: 0.01,
    names.LATENCY_MEAN: 0.1, names.CPU_RATIO: 0.5, names.MEMORY_RATIO: 0.5,
}  # fmt: skip
_QUANTILES = {"0.5": 0.05, "0.95": 0.4, "0.99": 0.9}
_PERIODS = {names.PERIOD_BAD: 10, names.PERIOD_TOTAL: 100_000, names.PERIOD_BLOCKS: 8640}
_COUNTS = (names.REVISION, names.PERIOD_BLOCKS)
"""Whole numbers that stay."""


@dataclass(frozen=True)
class Figures:
    """What the cycles of one number of policies took; seconds are medians, and the longest."""

    policies: int
    series: int
    queries: float
    megabytes: float
    """Of answers in a cycle, as text; Prometheus compresses them on the way."""
    cycle: tuple[float, float]
    bare: float
    processor: float
    """Seconds of CPU of the operator's side in a cycle."""
    stall: float
    """The longest the event loop kept a task waiting, while a cycle ran."""
    resident: tuple[float, float, float]
    """MiB: with the policies at hand, after the cycles, and the most in between."""
    prometheus: tuple[float, float] = (0.0, 0.0)
    """Seconds of CPU in a cycle, by what the bare program's queries took; MiB."""


def policies(count: int, address: str = "") -> list[model.Policy]:
    """Policies as users have them: six thresholds and throughput, two objectives."""
    provider = a.a_provider(address=address, timeout=timedelta(minutes=2))
    metrics = a.a_metrics_source(provider=provider)
    objectives = a.an_objective(), a.an_objective(name="fast", threshold=timedelta(milliseconds=500))
    return [
        a.a_policy(
            name=f"service-{n}",
            namespace=f"team-{n % 100}",
            uid=str(uuid.uuid5(uuid.NAMESPACE_DNS, f"service-{n}")),
            metrics=metrics,
            objectives=objectives,
        )
        for n in range(count)
    ]


class Series(NamedTuple):
    """One recorded series: as Prometheus spells it, about what it says, and the seconds between two samples."""

    text: str
    value: float
    spacing: int
    waves: bool


def series(policy: model.Policy) -> Iterator[Series]:
    """Every recorded series the operator reads of a policy."""
    identity = f'policy="{policy.key.name}",policy_namespace="{policy.key.namespace}",policy_uid="{policy.identity.uid}"'
    yield Series(f"{names.REVISION}{{{identity}}}", REVISION, _STEP, False)
    for name, value in _STEPS.items():
        yield Series(f"{name}{{{identity}}}", value, _STEP, True)
    for quantile, value in _QUANTILES.items():
        yield Series(f'{names.LATENCY_QUANTILE}{{{identity},quantile="{quantile}"}}', value, _STEP, True)
    yield Series(f"{names.MEMORY_GROWTH}{{{identity}}}", 0.1, _BLOCK, True)
    for objective in policy.objectives:
        for name, value in _PERIODS.items():
            yield Series(f'{name}{{{identity},objective="{objective.name}"}}', value, _BLOCK, name != names.PERIOD_BLOCKS)
        for window in REPORTED_WINDOWS:
            spacing = _STEP if window in objectives.STEP_WINDOWS else _BLOCK
            text = f'{names.BURN_RATE}{{{identity},objective="{objective.name}",window="{duration(window)}"}}'
            yield Series(text, 0.5, spacing, True)


def lines(known: Iterable[model.Policy], since: float, until: float) -> Iterator[str]:
    """The samples recorded after `since` up to `until` that a query reaches, each series' oldest first."""
    reach = {spacing: max(since, until - spacing * RANGE_INTERVALS) for spacing in (_STEP, _BLOCK)}
    times = {spacing: [at for at in _grid(spacing, until) if at > since] for spacing, since in reach.items()}
    waves = {at: 1 + _WAVE * math.sin(at) for stamps in times.values() for at in stamps}
    for number, policy in enumerate(known, 1):
        for text, value, spacing, waving in series(policy):
            for at in times[spacing]:
                yield f"{text} {value * (waves[at] + number * _APART) if waving else value} {at * 1000}\n"


def _grid(spacing: int, until: float) -> list[int]:
    """The newest moments at which something is recorded, the oldest first."""
    newest = int(until) // spacing * spacing
    return list(range(newest - spacing * RANGE_INTERVALS, newest + 1, spacing))


@contextmanager
def exporter(known: list[model.Policy]) -> Iterator[str]:
    """Address of a program that tells what was recorded since it was asked last, at first as far back as queries reach."""
    told = 0.0

    class Handler(http.server.BaseHTTPRequestHandler):
        wbufsize = 2**20

        def do_GET(self) -> None:
            nonlocal told
            since, told = told, time.time()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.writelines(map(str.encode, lines(known, since, told)))

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class Moment(NamedTuple):
    """Seconds, of the clock and of the process' CPU."""

    wall: float
    work: float


def _moment() -> Moment:
    return Moment(time.perf_counter(), time.process_time())


@dataclass
class Timed:
    """The real source, with the moments at which each cycle began and ended. Before each a bare program asks the same and parses it."""

    wanted: int
    pid: int
    """Of Prometheus."""
    parts: int
    other: ProcessPoolExecutor
    """The bare program's process: its memory is not the operator's."""
    source: MetricsSource = field(default_factory=MetricsSource)
    asked: int = 0
    queries: float = 0
    began: list[Moment] = field(default_factory=list)
    ended: list[Moment] = field(default_factory=list)
    bare: list[tuple[float, float, int]] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def collect(self, provider: model.Provider, share: int | None = None, budgets: bool = True) -> Snapshot:
        """One part of a cycle."""
        if self.asked % self.parts == 0:
            self.began.append(_moment())
        self.asked += 1
        return await self.source.collect(provider, share, budgets)

    async def collect_directly(self, provider: model.Provider, policies: Sequence[model.Policy]) -> Snapshot:
        """Never asked: the rules' series are there."""
        return await self.source.collect_directly(provider, policies)

    def forget(self, used: frozenset[model.Provider]) -> None:
        """Let go of every other provider."""
        self.source.forget(used)

    async def after(self, provider: model.Provider) -> None:
        """At the end of a cycle."""
        self.ended.append(_moment())
        self.queries = QUERIES.labels("ok")._value.get()  # what /metrics would say
        shares = [None] if self.parts == 1 else list(range(self.parts))
        queries = [query for share in shares for query in threshold_queries(provider, share)]
        queries += budget_queries(provider, shares[len(self.ended) % self.parts])
        asked = asyncio.get_running_loop().run_in_executor(self.other, _bare, provider, queries, self.pid)
        self.bare.append(await asked)
        if len(self.ended) == self.wanted:
            self.done.set()


class Paced(Scheduler):
    """The scheduler, which tells when a cycle is over."""

    async def _evaluate(self, provider: model.Provider, members: list[Member]) -> bool:
        changed = await super()._evaluate(provider, members)
        assert isinstance(self._collector, Timed)
        await self._collector.after(provider)
        return changed


def a_process() -> ProcessPoolExecutor:
    """One process beside this one, which begins with nothing of it."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def measure(count: int, address: str, cycles: int, pid: int) -> Figures:
    """So many cycles of the operator's scheduler, and as many of the bare program. Runs in a process of its own."""
    collect_seldom()
    known = policies(count, address)
    states = {policy.key: PolicyState(policy.identity.uid, resolved=policy) for policy in known}
    for state, policy in zip(states.values(), known, strict=True):
        state.memory = EvaluationMemory(expected=(policy, REVISION))
    with a_process() as other:
        timed, at_hand = Timed(cycles, pid, 1 if count <= MANY else len(SHARES), other), _resident(os.getpid())
        stall = asyncio.run(_cycles(timed, states, known[0].metrics.provider))
    judged = [state.evaluation for state in states.values() if state.evaluation is not None]
    complete = sum(
        found.health is not None and all(each.remaining is not None and len(each.burn) == 7 for each in found.objectives)
        for found in judged
    )
    assert complete == count, f"{complete} of {count} policies were judged"
    took = [ended.wall - began.wall for began, ended in zip(timed.began, timed.ended, strict=False)]
    return Figures(
        count,
        sum(1 for policy in known for _ in series(policy)),
        timed.queries / len(timed.ended),
        statistics.median(size for _, _, size in timed.bare) / 1e6,
        (statistics.median(took), max(took)),
        statistics.median(wall for wall, _, _ in timed.bare),
        statistics.median(ended.work - began.work for began, ended in zip(timed.began, timed.ended, strict=False)),
        stall,
        (at_hand, _resident(os.getpid()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        (statistics.median(work for _, work, _ in timed.bare), 0.0),
    )


async def _cycles(timed: Timed, states: dict[model.PolicyKey, PolicyState], provider: model.Provider) -> float:
    """The scheduler until it has done all cycles; the longest the event loop was held up."""
    scheduler = Paced(timed, states, lambda *_: None, lambda: datetime.now(UTC), partial(Interval, 0, 0, 1), Budget(5))
    scheduler.poke(provider)
    running, longest = asyncio.create_task(scheduler.run()), 0.0
    while not timed.done.is_set():
        before = time.perf_counter()
        await asyncio.sleep(_BEAT)
        if len(timed.began) > len(timed.ended):  # not while the bare program parses
            longest = max(longest, time.perf_counter() - before - _BEAT)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    timed.source.close()
    return longest


def _bare(provider: model.Provider, queries: Iterable[Query], pid: int) -> tuple[float, float, int]:
    """Seconds for the queries and no more than parsing their answers, seconds of Prometheus' CPU meanwhile, and bytes."""
    begun, worked, size = time.perf_counter(), cpu_seconds(pid), 0
    for query in queries:
        body = urllib.parse.urlencode({"query": query.text}).encode()
        with urllib.request.urlopen(f"{provider.address}/api/v1/query", data=body, timeout=120) as answer:  # noqa: S310
            text = answer.read()
        size += len(text)
        json.loads(text)
    return time.perf_counter() - begun, cpu_seconds(pid) - worked, size


def _resident(pid: int) -> float:
    """MiB of a process."""
    return resident_bytes(pid) / 2**20


def figures(count: int, cycles: int) -> Figures:
    """A Prometheus with the series of so many policies, and what the cycles take."""
    known = policies(count)
    with tempfile.TemporaryDirectory() as folder, exporter(known) as target:
        job = {
            "job_name": "recorded",
            "honor_labels": True,
            "scrape_interval": f"{_STEP}s",
            "scrape_timeout": f"{_STEP}s",
            "static_configs": [{"targets": [target]}],
        }
        with serve(Path(folder), lab_tools.required("prometheus", "prometheus"), {"scrape_configs": [job]}) as (prometheus, process):
            eventually(lambda: prometheus.value(f"count(count_over_time({names.REVISION}[3m]) >= 5)", time.time()) == count, 180)
            with a_process() as other:
                found = other.submit(measure, count, prometheus.url, cycles, process.pid).result()
            return replace(found, prometheus=(found.prometheus[0], _resident(process.pid)))


def table(found: Iterable[Figures]) -> Table:
    """The figures as docs/benchmarks.md shows them."""
    each = list(found)
    shown = Table("policies", *(f"{one.policies:,}" for one in each), title="one evaluation cycle of all policies")
    for name, values in (
        ("series", [f"{one.series:,}" for one in each]),
        ("queries", [f"{one.queries:g}" for one in each]),
        ("answers, MB as text", [f"{one.megabytes:.1f}" for one in each]),
        ("cycle, median and longest", [f"{one.cycle[0]:.2f} / {one.cycle[1]:.2f} s" for one in each]),
        ("the same queries, parsed only", [f"{one.bare:.2f} s" for one in each]),
        ("ratio", [f"{one.cycle[0] / one.bare:.2f}" for one in each]),
        ("CPU of the operator", [f"{one.processor:.2f} s" for one in each]),
        ("CPU of Prometheus", [f"{one.prometheus[0]:.2f} s" for one in each]),
        ("longest hold of the event loop", [f"{one.stall * 1000:.0f} ms" for one in each]),
        ("operator's memory before / after / most", [" / ".join(f"{value:.0f}" for value in one.resident) + " MiB" for one in each]),
        ("Prometheus' memory", [f"{one.prometheus[1]:.0f} MiB" for one in each]),
    ):
        shown.add_row(name, *values)
    return shown


@click.command(help=__doc__)
@click.option("--cycles", default=7, show_default=True)
@click.option("--size", "sizes", multiple=True, type=int, default=SIZES, show_default=True)
def main(cycles: int, sizes: tuple[int, ...]) -> None:
    """Print the table, and each line of it as soon as it is known."""
    console, found = Console(width=150), []
    for size in sizes:
        with console.status(f"{size} policies: two minutes and more"):
            found.append(figures(size, cycles))
        console.print(found[-1])
    console.print(table(found))


if __name__ == "__main__":
    main()
