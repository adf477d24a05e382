"""What many policies cost: time until all are Programmed, memory, the delay of an edit, a quiet minute, and a restart with nothing to do.

For each size the operator starts on an empty cluster, meets all policies at once (in namespaces of a hundred), sees edits of one policy at
a time, is left alone for a minute, is stopped and started again. Beside it the bare program of `bench.create_burst` sends the same
requests, one namespace after the other. Needs a lab of fake nodes: `python -m lab up --node fake`, then `python -m bench.scale 100 1000`.
"""

import asyncio
import json
import statistics
import tempfile
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.create_burst import Api, connect, in_parallel, manifests_of, policies_path, requests_since, send_all, stamped, timed
from e2e.cluster import Cluster, apply_crds
from e2e.operator_process import OperatorProcess
from e2e.policies import a_class, a_policy
from lab.lab import Lab

PREFIX = "scale"
PER_NAMESPACE = 100
CONCURRENCY = 16
EDITS = 20
QUIET_SECONDS = 60
PATIENCE = 3600.0


@dataclass(frozen=True)
class Size:
    """The figures of one number of policies: seconds, bytes; `edits` sorted; `steady`: share of a core while nothing happens, and
    `steady_writes` meanwhile; `restart_writes`: of the second operator.
    """

    policies: int
    operator: float
    bare: float
    resident: int
    each: float
    edits: tuple[float, ...]
    steady: float
    steady_writes: int
    restart: float
    restart_writes: int

    def column(self) -> dict[str, str]:
        """For the table."""
        late = self.edits[int(len(self.edits) * 0.95) - 1]
        return {
            "until all are Programmed": f"{self.operator:.1f} s",
            "bare asyncio, 16 at a time": f"{self.bare:.1f} s",
            "ratio": f"{self.operator / self.bare:.2f}",
            "memory": f"{self.resident / 2**20:.0f} MiB",
            "memory per policy, above an idle operator's": f"{self.each / 2**10:.1f} KiB",
            "edit of one until its status says so, p50 / p95": f"{statistics.median(self.edits) * 1000:.0f} / {late * 1000:.0f} ms",
            "a quiet minute": f"{self.steady:.1%} of a core, {self.steady_writes} writes",
            "restart until all are walked": f"{self.restart:.1f} s, {self.restart_writes} writes",
        }


def namespaces(cluster: Cluster, count: int) -> list[str]:
    """Enough fresh namespaces for so many policies."""
    run = uuid.uuid4().hex[:6]
    names = [f"{PREFIX}-{run}-{number}" for number in range(-(-count // PER_NAMESPACE))]
    labels = {"istio-injection": "enabled", PREFIX: "bench"}
    cluster.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}} for name in names))
    return names


def sweep(cluster: Cluster) -> None:
    """Take away what earlier sizes left."""
    cluster.kubectl("delete", "namespace", "-l", f"{PREFIX}=bench", f"--timeout={PATIENCE:.0f}s")


async def create_all(api: Api, wanted: list[dict[str, Any]]) -> None:
    """Create policies."""
    await in_parallel(CONCURRENCY, [partial(api.send, "POST", policies_path(policy["metadata"]["namespace"]), policy) for policy in wanted])


async def edit(api: Api, namespace: str, name: str, number: int) -> float:
    """Seconds from an edit of one policy until its status speaks of it."""
    path, start = f"{policies_path(namespace)}/{name}", time.monotonic()
    change = {"spec": {"traffic": {"timeout": f"{number + 1}s"}}}
    edited = await api.send("PATCH", path, change, "application/merge-patch+json", "application/json")
    while True:
        seen = (await api.send("GET", path, accept="application/json")).get("status", {})
        if seen.get("observedGeneration") == edited["metadata"]["generation"]:
            return time.monotonic() - start
        await asyncio.sleep(0.01)


def walked(process: OperatorProcess) -> int:
    """Walks over policies the operator has made so far."""
    lines = [line.rpartition(" ") for line in process.metrics().splitlines() if line.startswith("perfpolicy_reconcile_total{")]
    return int(sum(float(value) for _, _, value in lines))


async def until_idle(process: OperatorProcess, walks: int) -> None:
    """Wait until so many walks are made and nothing waits."""
    while walked(process) < walks or "perfpolicy_queue_depth 0.0" not in process.metrics():  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def measure(cluster: Cluster, api: Api, count: int, folder: Path, console: Console) -> Size:
    """All figures of one size."""
    log = folder / "operator.log"
    console.print(f"{count} policies: an empty cluster")
    sweep(cluster)
    names = namespaces(cluster, count)
    wanted = [a_policy(f"p{number % PER_NAMESPACE}", names[number // PER_NAMESPACE], replicas=0) for number in range(count)]
    with OperatorProcess(cluster.lab, log) as process:
        idle, since = process.resident_bytes, datetime.now(UTC)
        console.print(f"{count} policies: operator")
        operator = (await timed(api, "", count, create_all(api, wanted), PATIENCE)).seconds
        await until_idle(process, count)
        resident, sent = process.resident_bytes, requests_since(cluster, since, names[0])
        example = await api.send("GET", f"{policies_path(names[0])}/p0", accept="application/json")
        console.print(f"{count} policies: {EDITS} edits, one at a time")
        edits = [await edit(api, names[number % len(names)], "p1", number) for number in range(EDITS)]
        await until_idle(process, count)
        console.print(f"{count} policies: {QUIET_SECONDS} s in which nothing happens")
        since, before = datetime.now(UTC), process.cpu_seconds
        await asyncio.sleep(QUIET_SECONDS)
        steady, steady_writes = (process.cpu_seconds - before) / QUIET_SECONDS, cluster.writes(since).total()
    console.print(f"{count} policies: restart")
    since, start = datetime.now(UTC), time.monotonic()
    with OperatorProcess(cluster.lab, log) as process:
        await until_idle(process, count)
        restart = time.monotonic() - start
    writes = cluster.writes(since).total()
    console.print(f"{count} policies: bare asyncio")
    bare = 0.0
    for name in namespaces(cluster, count):
        here = min(count, PER_NAMESPACE)
        prepared = manifests_of(stamped(name, here))
        bare += (await timed(api, name, here, send_all(api, name, here, CONCURRENCY, sent, prepared, example["status"]))).seconds
    return Size(count, operator, bare, resident, (resident - idle) / count, tuple(sorted(edits)), steady, steady_writes, restart, writes)


@click.command()
@click.argument("sizes", type=int, nargs=-1)
@click.option("--lab", default="fake", show_default=True, help="Name of a lab of fake nodes that is up.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the report there too.")
def main(sizes: tuple[int, ...], lab: str, output: Path | None) -> None:
    """Measure SIZES, numbers of policies [default: 100 1000]."""
    console = Console(soft_wrap=True)
    cluster = Cluster(Lab(lab, "fake"))
    apply_crds(cluster.kubectl)
    cluster.apply(a_class())

    async def run() -> list[Size]:
        async with connect(cluster.lab) as api:
            with tempfile.TemporaryDirectory() as folder:
                return [await measure(cluster, api, count, Path(folder), console) for count in sizes or (100, 1000)]

    found = asyncio.run(run())
    table = Table("policies", *(str(size.policies) for size in found))
    for name, *values in zip(found[0].column(), *(size.column().values() for size in found), strict=True):
        table.add_row(name, *values)
    console.print(table)
    if output is not None:
        output.write_text(json.dumps([vars(size) for size in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
