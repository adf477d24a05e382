"""What many policies cost: time until all are Programmed, memory, the delay of an edit beside a flood, a quiet minute, restart, failover.

For each size the operator starts on an empty cluster, meets all policies at once (in namespaces of a hundred), sees edits of one policy at
a time, edits of a tenant with ten policies while every policy of the others is edited, and a minute of nothing; it is stopped and started
again; then a standby joins it and the leader is killed. Beside it the bare program of `bench.create_burst` sends the same requests. Needs a
lab of fake nodes: `python -m lab up --node fake`, then `python -m bench.scale 100 1000`. `--document` renews the table and the pictures of
docs/benchmarks.md.
"""

import asyncio
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench.create_burst import (
    Api,
    connect,
    create,
    in_parallel,
    manifests_of,
    policies_in,
    policies_path,
    requests_since,
    send_all,
    stamped,
    timed,
)
from bench.document import machine, picture, write_document
from e2e.cluster import Cluster, apply_crds
from e2e.operator_process import PROGRAM, OperatorProcess, free_port
from e2e.policies import a_class
from e2e.waiting import eventually
from lab import audit
from lab.lab import Lab

PREFIX = "scale"
PER_NAMESPACE = 100
CONCURRENCY = 16
SMALL = 10
"""Policies of the tenant beside the flood."""
EDITS = 20
QUIET_SECONDS = 60
EVENTS_SECONDS = 30
"""For the Events of the flood, up to a thousand of which still wait when every policy is done."""
PATIENCE = 3600.0
BARE_MOST = 5000
"""Policies up to which the bare program is run beside: with more, it and emptying the cluster for it take most of an hour."""


class Operator(OperatorProcess):
    """One that may have much to read before it is ready."""

    patience = PATIENCE


@dataclass(frozen=True)
class Size:
    """The figures of one number of policies, in seconds and bytes.

    `edits`, `beside`: sorted delays of edits, alone and beside the flood, which took `flood`. `resident`: memory when all were Programmed;
    `restarted`: of the second operator, `idle`: of the first one when there was none. `steady`: share of a core while nothing happens.
    `first_write`, `walked`: after the leader was killed. `kopf`: what it takes by itself, in a process of its own.
    """

    policies: int
    operator: float
    bare: float | None
    idle: int
    resident: int
    edits: Sequence[float]
    flood: float
    beside: Sequence[float]
    steady: float
    steady_writes: int
    restart: float
    restart_writes: int
    restarted: int
    first_write: float
    walked: float
    walked_writes: int
    kopf: int


ROWS: tuple[tuple[str, str, Any], ...] = (
    (
        "until all are Programmed, beside bare asyncio",
        "≤ 1.25 ×",
        lambda s: f"{s.operator / s.bare:.2f} × ({s.operator:.1f} / {s.bare:.1f} s)" if s.bare else f"{s.operator:.1f} s",
    ),
    ("memory when all are Programmed; after a restart", "≤ 300 MiB at 5,000", lambda s: f"{_mib(s.resident)}; {_mib(s.restarted)} MiB"),
    ("edit of one until its status says so, p50 / p95", "p95 ≤ 1 s", lambda s: _delays(s.edits)),
    (f"the same of a tenant with {SMALL}, while all are edited", "p95 ≤ 2 s", lambda s: f"{_delays(s.beside)} ({s.flood:.1f} s)"),
    ("a quiet minute", "≤ 5 % of a core, 0 writes", lambda s: f"{s.steady:.1%} of a core, {s.steady_writes} writes"),
    ("restart until all are walked", "≤ 20 s at 5,000, 0 writes", lambda s: f"{s.restart:.1f} s, {s.restart_writes} writes"),
    ("leader killed: until a drift is repaired", "≤ 20 s", lambda s: f"{s.first_write:.1f} s"),
    ("leader killed: until all are walked", "", lambda s: f"{s.walked:.1f} s, {s.walked_writes} writes"),
)
"""What is told of a size: the figure, its goal, how it is written."""


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f}"


def _delays(seconds: Sequence[float]) -> str:
    late = seconds[max(0, -(-len(seconds) * 95 // 100) - 1)]
    return f"{statistics.median(seconds) * 1000:.0f} / {late * 1000:.0f} ms"


def _slopes(name: str, goal: str, found: list[Size], memory: Callable[[Size], int]) -> list[str]:
    """A row of what each policy more takes, from one size to the next: what an operator takes anyway is no part of it."""
    each = [(memory(more) - memory(less)) / (more.policies - less.policies) / 2**10 for less, more in pairwise(found)]
    return [name, goal, "", *(f"{kib:.1f} KiB" for kib in each)]


def markdown(found: list[Size]) -> str:
    """The table for people and for docs/benchmarks.md. Pure."""
    rows = [["policies", "goal", *(f"{size.policies:,}" for size in found)], ["---", "---", *("---:" for _ in found)]]
    rows += [[name, goal, *(text(size) for size in found)] for name, goal, text in ROWS]
    rows.append(_slopes("memory of each policy more, after a restart", "≤ 45 KiB", found, lambda size: size.restarted))
    rows.append(_slopes("of it kopf's own", "", found, lambda size: size.kopf))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def pictures(found: list[Size]) -> dict[str, str]:
    """SVGs by name. Pure."""
    sizes = [size.policies for size in found]
    seconds = {
        "until all are Programmed": [size.operator for size in found],
        "the same requests, bare asyncio": [size.bare or math.nan for size in found],
        "restart until all are walked": [size.restart for size in found],
    }
    mib = {
        "when all are Programmed": [size.resident / 2**20 for size in found],
        "after a restart": [size.restarted / 2**20 for size in found],
        "kopf's own share, without an operator": [size.kopf / 2**20 for size in found],
    }
    return {
        "scale-seconds": picture("Seconds", "policies", sizes, seconds, powers=True),
        "scale-memory": picture("Memory, MiB", "policies", sizes, mib),
    }


def namespaces(cluster: Cluster, count: int) -> list[str]:
    """Fresh namespaces."""
    run = uuid.uuid4().hex[:6]
    names = [f"{PREFIX}-{run}-{number}" for number in range(count)]
    labels = {"istio-injection": "enabled", PREFIX: "bench"}
    cluster.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}} for name in names))
    return names


def many(cluster: Cluster, count: int) -> list[dict[str, Any]]:
    """So many policies, in fresh namespaces of a hundred."""
    names = namespaces(cluster, -(-count // PER_NAMESPACE))
    return [policy for name in names for policy in policies_in(name, PER_NAMESPACE)][:count]


def sweep(cluster: Cluster) -> None:
    """Take away what earlier sizes left."""
    cluster.kubectl("delete", "namespace", "-l", f"{PREFIX}=bench", f"--timeout={PATIENCE:.0f}s")


def path_of(policy: dict[str, Any]) -> str:
    """Of a policy."""
    return f"{policies_path(policy['metadata']['namespace'])}/{policy['metadata']['name']}"


async def edit(api: Api, policy: dict[str, Any], number: int) -> Any:
    """Change the policy; as it is then."""
    change = {"spec": {"traffic": {"timeout": f"{number + 11}s"}}}
    return await api.send("PATCH", path_of(policy), change, "application/merge-patch+json", "application/json")


async def edited(api: Api, policy: dict[str, Any], number: int) -> float:
    """Seconds from an edit of one policy until its status speaks of it: its children are written then."""
    start = time.monotonic()
    generation = (await edit(api, policy, number))["metadata"]["generation"]
    while True:
        seen = (await api.send("GET", path_of(policy), accept="application/json")).get("status", {})
        if seen.get("observedGeneration") == generation:
            return time.monotonic() - start
        await asyncio.sleep(0.02)


async def flooded(
    api: Api, process: OperatorProcess, policies: list[dict[str, Any]], small: list[dict[str, Any]]
) -> tuple[float, list[float]]:
    """Seconds until every one of the policies was edited and written, and the delays of edits of the small tenant meanwhile."""

    async def flood() -> float:
        start = time.monotonic()
        await in_parallel(CONCURRENCY, [partial(edit, api, policy, 0) for policy in policies])
        await until_idle(process, 0)
        return time.monotonic() - start

    delays, flooding, number = [], asyncio.create_task(flood()), 1
    while not flooding.done():
        delays.append(await edited(api, small[number % len(small)], number))
        number += 1
    return await flooding, sorted(delays)


def gauge(process: OperatorProcess, name: str) -> float:
    """The sum over the labels of a metric."""
    lines = [line.rpartition(" ") for line in process.metrics(name).splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(value) for _, _, value in lines)


def depth(process: OperatorProcess) -> int:
    """Policies that wait for a worker."""
    return int(gauge(process, "perfpolicy_queue_depth"))


async def until_idle(process: OperatorProcess, walks: int) -> None:
    """Wait until so many walks are made and nothing waits; one that is too busy to answer is asked again."""
    while True:
        try:
            if gauge(process, "perfpolicy_reconcile_total") >= walks and not depth(process):
                return
        except OSError:
            if not process.running:
                raise
        await asyncio.sleep(0.2)


async def failover(
    cluster: Cluster, first: OperatorProcess, second: OperatorProcess, policies: list[dict[str, Any]]
) -> tuple[float, float, int]:
    """Kill the leader and delete a child: seconds until the other one has made it again, and until it has walked all; its writes."""
    identity = str(second.readiness()["leader"]["identity"])
    metadata = policies[len(policies) // 2]["metadata"]
    since, killed, start = audit.position(cluster.lab.audit_log), datetime.now(UTC), time.monotonic()
    first.kill()
    cluster.delete("service", metadata["name"], metadata["namespace"])
    await until_idle(second, len(policies))
    walked = time.monotonic() - start

    def repaired() -> list[audit.Request]:
        found = [one for one in audit.requests(cluster.lab.audit_log, since, identity) if one.is_write]
        assert any(one.resource == "services" for one in found)
        return found

    writes = [one for one in eventually(repaired) if one.resource not in ("leases", "events")]
    at = min(datetime.fromisoformat(one.at) for one in writes if one.resource == "services")
    return (at - killed).total_seconds(), walked, len(writes)


async def measure(cluster: Cluster, api: Api, count: int, folder: Path, console: Console) -> Size:
    """All figures of one size."""
    log = folder / "operator.log"
    started = time.monotonic()

    def tell(text: str) -> None:
        console.print(f"{time.monotonic() - started:6.0f} s  {count} policies: {text}")

    tell("an empty cluster")
    sweep(cluster)
    policies, (quiet,) = many(cluster, count), namespaces(cluster, 1)
    with Operator(cluster.lab, log) as process:
        idle, since = process.resident_bytes, audit.position(cluster.lab.audit_log)
        tell("operator")
        operator = (await timed(api, policies, create(api, policies), PATIENCE)).seconds
        await until_idle(process, count)
        resident, sent = process.resident_bytes, requests_since(cluster, since, None)
        example = await api.send("GET", path_of(policies[0]), accept="application/json")
        tell(f"Programmed in {operator:.1f} s, {_mib(resident)} MiB; {EDITS} edits, one at a time")
        edits = [await edited(api, policies[(number * PER_NAMESPACE + 1) % count], number) for number in range(EDITS)]
        tell(f"{_delays(sorted(edits))}; edits of {SMALL} while all are edited")
        small = policies_in(quiet, SMALL)
        await timed(api, small, create(api, small), PATIENCE)
        flood, beside = await flooded(api, process, policies, small)
        await until_idle(process, count)
        tell(f"{_delays(beside)}, all in {flood:.1f} s; {QUIET_SECONDS} s in which nothing happens")
        await asyncio.sleep(EVENTS_SECONDS)
        position, before = audit.position(cluster.lab.audit_log), process.cpu_seconds
        await asyncio.sleep(QUIET_SECONDS)
        steady, steady_writes = (process.cpu_seconds - before) / QUIET_SECONDS, cluster.writes(position).total()
    tell(f"{steady:.1%} of a core, {steady_writes} writes; restart")
    lease = {"lease": PREFIX, "lease_namespace": quiet}
    with ExitStack() as stack:
        position, start = audit.position(cluster.lab.audit_log), time.monotonic()
        first = stack.enter_context(Operator(cluster.lab, log, free_port(), PROGRAM, **lease))
        await until_idle(first, count + SMALL)
        restart, restarted = time.monotonic() - start, first.resident_bytes
        restart_writes = sum(number for one, number in cluster.writes(position).items() if one.resource != "leases")
        second = stack.enter_context(Operator(cluster.lab, log, free_port(), PROGRAM, **lease))
        tell(f"walked in {restart:.1f} s, {restart_writes} writes, {_mib(restarted)} MiB; failover")
        first_write, walked, walked_writes = await failover(cluster, first, second, policies)
    tell(f"drift repaired in {first_write:.1f} s, walked in {walked:.1f} s; kopf alone")
    alone = (sys.executable, "-m", "bench.kopf_alone", str(cluster.lab.kubeconfig), str(count + SMALL))
    kopf = int((await asyncio.to_thread(subprocess.run, alone, stdout=subprocess.PIPE, check=True, text=True)).stdout)
    bare = None
    if count <= BARE_MOST:
        tell("an empty cluster")
        sweep(cluster)
        policies = many(cluster, count)
        prepared = manifests_of(stamped(policies))
        tell("bare asyncio")
        bare = (await timed(api, policies, send_all(api, policies, CONCURRENCY, sent, prepared, example["status"]), PATIENCE)).seconds
    tell("done")
    return Size(
        policies=count,
        operator=operator,
        bare=bare,
        idle=idle,
        resident=resident,
        edits=tuple(sorted(edits)),
        flood=flood,
        beside=tuple(beside),
        steady=steady,
        steady_writes=steady_writes,
        restart=restart,
        restart_writes=restart_writes,
        restarted=restarted,
        first_write=first_write,
        walked=walked,
        walked_writes=walked_writes,
        kopf=kopf,
    )


@click.command()
@click.argument("sizes", type=int, nargs=-1)
@click.option("--lab", default="fake", show_default=True, help="Name of a lab of fake nodes that is up.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the report there too; other sizes it has are kept.")
@click.option("--document", is_flag=True, help="Renew the table and the pictures of docs/benchmarks.md.")
def main(sizes: tuple[int, ...], lab: str, output: Path | None, document: bool) -> None:
    """Measure SIZES, growing numbers of policies [default: 100 1000]."""
    console = Console(soft_wrap=True)
    cluster = Cluster(Lab(lab, "fake"))
    apply_crds(cluster.kubectl)
    cluster.apply(a_class())
    wanted = sizes or (100, 1000)
    kept = json.loads(output.read_text()) if output is not None and output.exists() else []
    found = [Size(**one) for one in kept if one["policies"] not in wanted]

    async def run() -> None:
        async with connect(cluster.lab) as api:
            with tempfile.TemporaryDirectory() as folder:
                for count in wanted:
                    found.append(await measure(cluster, api, count, Path(folder), console))
                    found.sort(key=lambda size: size.policies)
                    # After each size: a larger one may be more than the machine can bear.
                    write()
        sweep(cluster)

    def write() -> None:
        if output is not None:
            output.write_text(json.dumps([asdict(size) for size in found], indent=2) + "\n")
        if document:
            write_document("scale", f"{machine()}\n\n{markdown(found)}", pictures(found))

    asyncio.run(run())
    console.print(markdown(found), markup=False, highlight=False)


if __name__ == "__main__":
    main()
