"""How fast and how large the operator is beside Sloth's controller, on the same API server, in the same run.

The part both do: a PrometheusRule for a service level objective. Sloth gets so many PrometheusServiceLevels of one objective, the
operator as many policies of one objective for workloads that exist; then the operator gets as many whole policies, twelve children each.
The rules of both are followed by the same watch. Builds Sloth from its Go module at first. Needs a lab of fake nodes:
`python -m lab up --node fake`, then `python -m bench.rival_controller`.
"""

import asyncio
import json
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Awaitable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table

from bench.create_burst import Api, connect, create, in_parallel, policies_in, requests_since, timed, watched
from e2e.cluster import Cluster, apply_crds
from e2e.operator_process import OperatorProcess, cpu_seconds, free_port, resident_bytes
from e2e.policies import CLASS, a_class, a_policy
from lab import audit, components
from lab.lab import Lab, wait_established

PATIENCE = 900.0
SLOTH = "github.com/slok/sloth"


@dataclass(frozen=True)
class Figures:
    """One program and so many of its objects: what it applied, in how many seconds, with how much CPU (seconds) and memory (bytes)."""

    program: str
    wanted: int
    applied: int
    seconds: float
    cpu: float
    idle: int
    resident: int


def service_level(name: str, namespace: str) -> dict[str, Any]:
    """Sloth's object: one availability objective with its page and ticket alert."""
    total = f'istio_requests_total{{destination_service_name="{name}",destination_service_namespace="{namespace}"'
    return {
        "apiVersion": "sloth.slok.dev/v1",
        "kind": "PrometheusServiceLevel",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "service": name,
            "slos": [
                {
                    "name": "availability",
                    "objective": 99.9,
                    "sli": {
                        "events": {
                            "errorQuery": f'sum(rate({total},response_code=~"5.."}}[{{{{.window}}}}]))',
                            "totalQuery": f"sum(rate({total}}}[{{{{.window}}}}]))",
                        }
                    },
                    "alerting": {"name": "HighErrorRate", "pageAlert": {}, "ticketAlert": {}},
                }
            ],
        },
    }


def objective_only(name: str, namespace: str) -> dict[str, Any]:
    """The operator's object for the same: nothing but an objective of a workload that exists."""
    policy = a_policy(name, namespace)
    wanted = {"className": CLASS, "objectives": policy["spec"]["objectives"]}
    target = {"targetRef": {"group": "apps", "kind": "Deployment", "name": name}, "serviceRef": {"name": name}}
    return {**policy, "spec": {**wanted, "workload": target}}


def workload(name: str, namespace: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `objective_only` is about: a Deployment without pods, and its Service."""
    labels, meta = {"app": name}, {"name": name, "namespace": namespace}
    container = {"name": "app", "image": "localhost/backend:lab", "ports": [{"name": "http", "containerPort": 8080}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return (
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": labels, "ports": ports}},
    )


async def until_rules(api: Api, namespace: str, count: int) -> None:
    """Follow the PrometheusRules of a namespace until there are so many."""
    path, found = f"/apis/monitoring.coreos.com/v1/namespaces/{namespace}/prometheusrules", set[str]()
    try:
        async with asyncio.timeout(PATIENCE), aclosing(watched(api, path)) as shown:
            async for rule in shown:
                found.add(rule["metadata"]["name"])
                if len(found) >= count:
                    return
    except TimeoutError:
        raise RuntimeError(f"{len(found)} of {count} PrometheusRules were there after {PATIENCE:g} s") from None


async def followed(api: Api, namespace: str, count: int, work: Awaitable[Any]) -> float:
    """Seconds for the work and until so many PrometheusRules are there."""
    start = time.monotonic()
    following = asyncio.create_task(until_rules(api, namespace, count))
    await work
    await following
    return time.monotonic() - start


@contextmanager
def sloth(lab: Lab, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Sloth's controller with its defaults."""
    addresses = [f"--{what}-addr=127.0.0.1:{free_port()}" for what in ("metrics-listen", "hot-reload")]
    command = [str(components.binary("sloth")), "kubernetes-controller", "--kube-local", f"--kube-config={lab.kubeconfig}", *addresses]
    with log.open("ab") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


@contextmanager
def namespace_of(cluster: Cluster, what: str) -> Iterator[str]:
    """A namespace, which is gone afterwards."""
    name = f"rival-{what}-{uuid.uuid4().hex[:6]}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"istio-injection": "enabled"}}})
    try:
        yield name
    finally:
        # Waited for: its collection would weigh on what is measured next.
        cluster.kubectl("delete", "namespace", name, "--timeout=600s")


async def sloths_part(cluster: Cluster, api: Api, count: int, log: Path) -> Figures:
    """Sloth's controller, from the first PrometheusServiceLevel to the last PrometheusRule."""
    with namespace_of(cluster, "sloth") as namespace, sloth(cluster.lab, log) as process:
        path = f"/apis/sloth.slok.dev/v1/namespaces/{namespace}/prometheusservicelevels"
        first = asyncio.create_task(until_rules(api, namespace, 1))
        await api.send("POST", path, service_level("first", namespace))
        await first  # it runs, and its caches are filled
        before, idle = cpu_seconds(process.pid), resident_bytes(process.pid)
        jobs = [partial(api.send, "POST", path, service_level(f"s{number}", namespace)) for number in range(count)]
        seconds = await followed(api, namespace, count + 1, in_parallel(16, jobs))
        after, resident = cpu_seconds(process.pid), resident_bytes(process.pid)
    return Figures("Sloth, PrometheusServiceLevels", count, count, seconds, after - before, idle, resident)


async def our_part(cluster: Cluster, api: Api, count: int, log: Path) -> Figures:
    """The operator, from the first policy of one objective to the last PrometheusRule."""
    with namespace_of(cluster, "part") as namespace:
        paths = (f"/apis/apps/v1/namespaces/{namespace}/deployments", f"/api/v1/namespaces/{namespace}/services")
        made = [(path, body) for n in range(count) for path, body in zip(paths, workload(f"s{n}", namespace), strict=True)]
        await in_parallel(16, [partial(api.send, "POST", path, body) for path, body in made])
        with OperatorProcess(cluster.lab, log) as process:
            before, idle = process.cpu_seconds, process.resident_bytes
            policies = [objective_only(f"s{number}", namespace) for number in range(count)]
            seconds = await followed(api, namespace, count, create(api, policies))
            after, resident = process.cpu_seconds, process.resident_bytes
    return Figures("perfpolicy, policies of one objective", count, count, seconds, after - before, idle, resident)


async def whole_policies(cluster: Cluster, api: Api, count: int, log: Path) -> Figures:
    """The operator, from the first whole policy until all are Programmed."""
    with namespace_of(cluster, "whole") as namespace, OperatorProcess(cluster.lab, log) as process:
        since, before, idle = audit.position(cluster.lab.audit_log), process.cpu_seconds, process.resident_bytes
        policies = policies_in(namespace, count)
        seconds = (await timed(api, policies, create(api, policies), PATIENCE)).seconds
        after, resident = process.cpu_seconds, process.resident_bytes
        applied = requests_since(cluster, since, namespace).writes
    return Figures("perfpolicy, whole policies", count, applied, seconds, after - before, idle, resident)


def table(found: list[Figures]) -> Table:
    """The figures for people and for docs/benchmarks.md; Sloth's come first."""
    rival = found[0]
    shown = Table("", *(each.program for each in found))
    for name, text in (
        ("objects wanted", lambda each: f"{each.wanted:,}"),
        ("objects applied", lambda each: f"{each.applied:,}"),
        ("seconds", lambda each: f"{each.seconds:.1f}"),
        ("applied a second", lambda each: f"{each.applied / each.seconds:.0f}"),
        ("beside Sloth", lambda each: f"{each.applied / each.seconds * rival.seconds / rival.applied:.2f} ×"),
        ("CPU for each applied", lambda each: f"{each.cpu / each.applied * 1000:.1f} ms"),
        ("memory before / after", lambda each: f"{each.idle / 2**20:.0f} / {each.resident / 2**20:.0f} MiB"),
    ):
        shown.add_row(name, *map(text, found))
    return shown


async def measure(cluster: Cluster, count: int, console: Console) -> list[Figures]:
    """One after the other."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        async with connect(cluster.lab) as api:
            for part in (sloths_part, our_part, whole_policies):
                console.print(f"{part.__name__.replace('_', ' ')}, {count} objects")
                found.append(await part(cluster, api, count, Path(folder) / "log"))
    return found


@click.command()
@click.option("--lab", default="fake", show_default=True, help="Name of a lab of fake nodes that is up.")
@click.option("--count", default=300, show_default=True, help="Objects each program is given.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the figures there too.")
def main(lab: str, count: int, output: Path | None) -> None:
    """Measure the operator and Sloth's controller, one after the other on the same API server, and print the table."""
    console = Console(soft_wrap=True, width=150)
    cluster = Cluster(Lab(lab, "fake"))
    crds = components.module_dir("sloth", SLOTH) / "pkg" / "kubernetes" / "gen" / "crd"
    cluster.apply(*(yaml.safe_load(file.read_text()) for file in crds.glob("*.yaml")))
    apply_crds(cluster.kubectl)
    wait_established(cluster.kubectl, ["prometheusservicelevels.sloth.slok.dev"])
    cluster.apply(a_class())
    found = asyncio.run(measure(cluster, count, console))
    console.print(table(found))
    if output is not None:
        output.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
